#include "train/inspect/inspection_script.h"

namespace colonnade {

const char* const mask_colors_script = R"js(
// Why query i may not see key j (attention/mask.h): one of `rules`, 0 if it may.
const rules = ["visible", "lower", "upper", "future", "window"];
const hidden_by = (mask, i, j) =>
  mask.lts[j] <= i && i < mask.lte[j] ? 1
  : mask.uts[j] <= i && i < mask.ute[j] ? 2
  : mask.causal && j > i + mask.columns - mask.rows ? 3
  : mask.window > 0 && mask.positions[i] - mask.positions[j] >= mask.window ? 4 : 0;

// Pixels are 32-bit words, alpha first.
const word = color => (0xFF000000 | color[2] << 16 | color[1] << 8 | color[0]) >>> 0;
const picture_colors = () => {
  const [paper, ink, faint, grid] = ["paper", "ink", "faint", "grid"].map(style_color);
  const [full, partial, warn] = ["c0", "c1", "warn"].map(style_color);
  const hidden = {lower: mixed(faint, paper, .13), upper: mixed(style_color("c3"), paper, .2), future: paper,
                  window: mixed(partial, paper, .2)};
  const colors = {paper, ink, faint, grid, full, partial, warn, learned: partial, ...hidden};
  colors.rule_words = new Uint32Array(rules.map((rule, k) => k === 0 ? 0 : word(hidden[rule])));
  colors.tile_words = new Uint32Array([word(grid), word(partial), word(full)]);
  colors.crossing = word(warn);
  colors.segment = new Map();
  colors.of = i => {  // of token i: its sample and branch
    const at = row ? row.samples[i] * 4 + row.sequences[i] % 4 : 0;
    if (!colors.segment.has(at)) colors.segment.set(at, row ? sample_color(row.samples[i], row.sequences[i]) : full);
    return colors.segment.get(at);
  };
  return colors;
};

// Consecutive tokens of one sample and one branch.
const segments_of_row = () => {
  const segments = [];
  for (let begin = 0, end; begin < row.length; begin = end) {
    for (end = begin; end < row.length && row.samples[end] === row.samples[begin] &&
         row.sequences[end] === row.sequences[begin];) ++end;
    segments.push({begin, end, sample: row.samples[begin]});
  }
  return segments;
};
)js";

const char* const mask_drawing_script = R"js(
// Draws a view: mask, mode "exact" or "tiles", x and y (first key and query, as fractions), scale (pixels of a token).
// The plot is where the mask is: x, y, width, height in pixels; strips are above it, lower ones if texts need the room.
const shows_texts = view => row && view.scale >= 13;
const strips_of = view => {
  const heights = shows_texts(view) ? [18, 22, 22] : [22, 50, 36];
  return ["samples", "positions", "learned"].map((name, k) =>
    ({name, height: heights[k], y: heights.slice(0, k).reduce((sum, height) => sum + height + 3, 0)}));
};
const drawing_of = (canvas, plot) => {
  const context = canvas.getContext("2d");
  const segments = row ? segments_of_row() : [];
  const learned = new Float64Array(row ? row.length + 1 : 1);  // sums, for the mean of a pixel
  let longest = 1, heaviest = 0;
  if (row) row.weights.forEach((weight, i) => {
    learned[i + 1] = learned[i] + (weight !== 0);
    heaviest = Math.max(heaviest, Math.abs(weight));
    longest = Math.max(longest, row.positions[i]);
  });

  // One pair for each pixel. `paint` is given the pixels, their width and height, and the tokens from one to the next.
  const painted = (view, ratio, paint) => {
    const width = Math.round(plot.width * ratio), height = Math.round(plot.height * ratio);
    const image = context.createImageData(width, height);
    paint(new Uint32Array(image.data.buffer), width, height, 1 / (view.scale * ratio));
    context.putImageData(image, Math.round(plot.x * ratio), Math.round(plot.y * ratio));
  };
  const draw_pairs = (view, colors, ratio) => painted(view, ratio, (pixels, width, height, step) => {
    const mask = view.mask, shift = mask.columns - mask.rows;
    const keys = Math.max(0, Math.min(width, Math.ceil((mask.columns - view.x) / step - .5)));
    const shared = [];
    const [key, lts, lte, uts, ute, position, sample] = Array.from({length: 7}, () => new Int32Array(keys));
    for (let p = 0; p < keys; ++p) {
      const j = key[p] = Math.min(mask.columns - 1, Math.floor(view.x + (p + .5) * step));
      lts[p] = mask.lts[j]; lte[p] = mask.lte[j]; uts[p] = mask.uts[j]; ute[p] = mask.ute[j];
      position[p] = mask.window > 0 ? mask.positions[j] : 0;
      sample[p] = row ? row.samples[j] : 0;
      shared[p] = owners[j];
    }
    const crosses = (p, own) => sample[p] !== own && !(shared[p] && shared[p].has(own));
    const [lower, upper, future, outside] = colors.rule_words.subarray(1);
    for (let q = 0; q < height; ++q) {
      const i = Math.floor(view.y + (q + .5) * step);
      if (i >= mask.rows) break;
      const last = mask.causal ? i + shift : mask.columns, own = row ? row.samples[i] : 0, visible = word(colors.of(i));
      const oldest = mask.window > 0 ? mask.positions[i] - mask.window : -Infinity;
      for (let p = 0, at = q * width; p < keys; ++p, ++at)
        pixels[at] = lts[p] <= i && i < lte[p] ? lower : uts[p] <= i && i < ute[p] ? upper
          : key[p] > last ? future : position[p] <= oldest ? outside : crosses(p, own) ? colors.crossing : visible;
    }
  });
  const draw_tiles = (view, colors, ratio) => painted(view, ratio, (pixels, width, height, step) => {
    const {rows, columns, tile, classes} = view.mask;
    for (let q = 0; q < height; ++q) {
      const i = Math.floor(view.y + (q + .5) * step);
      if (i >= rows) break;
      const line = classes[Math.floor(i / tile)] || "";
      for (let p = 0; p < width; ++p) {
        const j = Math.floor(view.x + (p + .5) * step);
        if (j >= columns) break;
        pixels[q * width + p] = colors.tile_words["./#".indexOf(line[Math.floor(j / tile)])];
      }
    }
  });

  const lines = (view, every, color) => {
    context.beginPath();
    const right = plot.x + Math.min(plot.width, (view.mask.columns - view.x) * view.scale);
    const bottom = plot.y + Math.min(plot.height, (view.mask.rows - view.y) * view.scale);
    for (let j = Math.ceil(view.x / every) * every, x; (x = plot.x + (j - view.x) * view.scale) <= right; j += every)
      context.moveTo(x, plot.y), context.lineTo(x, bottom);
    for (let i = Math.ceil(view.y / every) * every, y; (y = plot.y + (i - view.y) * view.scale) <= bottom; i += every)
      context.moveTo(plot.x, y), context.lineTo(right, y);
    context.strokeStyle = color;
    context.lineWidth = 1;
    context.stroke();
  };

  const text = (words, x, y, align, color, font) => {
    context.font = font || "11px system-ui,sans-serif";
    context.textAlign = align;
    context.fillStyle = color;
    context.fillText(words, x, y);
  };

  // Numbers of keys and queries; token texts if there is room for each.
  const draw_axes = (view, colors) => {
    const faint = css(colors.faint), ink = css(colors.ink);
    const texts = shows_texts(view);
    let every = 1;
    for (let k = 0; every * view.scale < 64; ++k) every = [1, 2, 5][k % 3] * 10 ** Math.floor(k / 3);
    context.textBaseline = "middle";
    const last_key = Math.min(view.mask.columns, view.x + plot.width / view.scale);
    const last_query = Math.min(view.mask.rows, view.y + plot.height / view.scale);
    const first = from => texts ? Math.ceil(from - .5) : Math.ceil(from / every) * every, step = texts ? 1 : every;
    for (let j = first(view.x); j < last_key; j += step) {
      const x = plot.x + (j - view.x + (texts ? .5 : 0)) * view.scale;
      if (!texts) {
        text(j, x, plot.y - 13, "center", faint);
        context.fillRect(x, plot.y - 6, 1, 4);
        continue;
      }
      context.save();
      context.translate(x, plot.y - 12);
      context.rotate(-Math.PI / 2);
      text(short(row.tokens[j], 8), 0, 0, "left", ink, "11px ui-monospace,monospace");
      context.restore();
    }
    for (let i = first(view.y); i < last_query; i += step) {
      const y = plot.y + (i - view.y + (texts ? .5 : 0)) * view.scale;
      if (texts) text(short(row.tokens[i], 9), plot.x - 12, y, "right", ink, "11px ui-monospace,monospace");
      else text(i, plot.x - 16, y, "right", faint), context.fillRect(plot.x - 13, y, 4, 1);
    }
  };

  // A strip's value at a pixel is that of the token in its middle; that of learned tokens is their part.
  const draw_strips = (view, colors, [samples, positions, loss], width) => {
    for (const strip of [positions, loss]) {
      context.fillStyle = css(mixed(colors.faint, colors.paper, .08));
      context.fillRect(plot.x, strip.y, width, strip.height);
    }
    const slope = css(mixed(colors.faint, colors.paper, .6)), bright = css(colors.learned), ink = css(colors.ink);
    for (let x = 0; x < width; ++x) {
      const bar = (strip, height, color) => {
        context.fillStyle = color;
        context.fillRect(plot.x + x, strip.y + strip.height - height, Math.min(1, width - x), height);
      };
      const j = Math.min(row.length - 1, Math.floor(view.x + (x + .5) / view.scale));
      bar(samples, samples.height, css(colors.of(j)));
      if (row.users[j] > 1) bar(samples, 4, ink);
      if (row.samples[j] >= 0) bar(positions, Math.max(1, row.positions[j] / longest * positions.height), slope);
      const begin = Math.floor(view.x + x / view.scale);
      const end = Math.min(row.length, Math.max(begin + 1, Math.floor(view.x + (x + 1) / view.scale)));
      const part = (learned[end] - learned[begin]) / (end - begin);
      if (part === 0) continue;
      context.globalAlpha = end - begin > 1 ? 1 : .3 + .7 * Math.abs(row.weights[j]) / heaviest;
      bar(loss, Math.max(2, part * loss.height), bright);
      context.globalAlpha = 1;
    }
  };
  // Names of strips, numbers of samples that have room for them, and the samples of the queries beside the mask.
  const name_strips = (view, colors, strips, width) => {
    const samples = strips[0], paper = css(colors.paper);
    context.textBaseline = "middle";
    for (const strip of strips) text(strip.name, plot.x - 12, strip.y + strip.height / 2, "right", css(colors.faint));
    for (const {begin, end, sample} of segments) {
      const from = Math.max(0, (begin - view.x) * view.scale), to = Math.min(width, (end - view.x) * view.scale);
      if (to <= 0 || from >= width) continue;
      context.fillStyle = paper;
      if (to - from > 3 && begin > view.x) context.fillRect(plot.x + from - .5, samples.y, 1, samples.height);
      const name = sample < 0 ? "padding" : String(sample + 1);
      if (to - from > 8 * name.length + 4)
        text(name, plot.x + (from + to) / 2, samples.y + samples.height / 2, "center", paper);
    }
    const bottom = Math.min(plot.height, (view.mask.rows - view.y) * view.scale);
    for (let y = 0; y < bottom; ++y) {
      context.fillStyle = css(colors.of(Math.min(row.length - 1, Math.floor(view.y + (y + .5) / view.scale))));
      context.fillRect(plot.x - 8, plot.y + y, 6, Math.min(1, bottom - y));
    }
  };

  return (view, colors) => {
    const ratio = canvas.width / canvas.clientWidth, tiles = view.mode === "tiles", tile = view.mask.tile;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    (tiles ? draw_tiles : draw_pairs)(view, colors, ratio);
    if (!tiles && view.scale >= 8) lines(view, 1, css(colors.paper));
    if (tile > 0 && tile * view.scale >= (tiles ? 10 : 64))
      lines(view, tile, css(tiles ? colors.paper : mixed(colors.faint, colors.paper, .5)));
    draw_axes(view, colors);
    if (!row) return;
    const strips = strips_of(view), width = Math.min(plot.width, (view.mask.columns - view.x) * view.scale);
    draw_strips(view, colors, strips, width);
    name_strips(view, colors, strips, width);
  };
};
)js";

}  // namespace colonnade
