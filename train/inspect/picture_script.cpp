#include "train/inspect/inspection_script.h"

namespace colonnade {

const char* const picture_script = R"js(
// The picture of the mask. `clicked(sample, token)` is called for a click on a sample. Returns what the list of samples
// needs: select(sample) outlines it, mark(tokens) points at tokens, go_to(begin, end) brings them into view.
const start_picture = clicked => {
  const stage = element("stage"), base = element("base"), over = element("over"), section = element("picture");
  const biggest_token = 44;
  const plot = {x: row ? 92 : 60, y: row ? 138 : 22, width: 1, height: 1};
  const view = {mask: data.masks[0], mode: "exact", x: 0, y: 0, scale: 0};
  const draw = drawing_of(base, plot);
  let colors = picture_colors(), selected = -1, marked = null, waiting = false;

  const whole_scale = () => Math.min(plot.width / view.mask.columns, plot.height / view.mask.rows);
  const clamp = () => {
    view.scale = Math.max(whole_scale(), Math.min(biggest_token, view.scale));
    view.x = Math.max(0, Math.min(view.x, view.mask.columns - plot.width / view.scale));
    view.y = Math.max(0, Math.min(view.y, view.mask.rows - plot.height / view.scale));
  };

  // The layer on top: the selected sample, what the pointer is at.
  const draw_over = () => {
    const context = over.getContext("2d"), ratio = over.width / over.clientWidth;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, over.clientWidth, over.clientHeight);
    const x_of = j => plot.x + (j - view.x) * view.scale, y_of = i => plot.y + (i - view.y) * view.scale;
    const inside = (x, y, width, height, then) => {
      context.save();
      context.beginPath();
      context.rect(x, y, width, height);
      context.clip();
      then();
      context.restore();
    };
    if (row && selected >= 0) {
      const begin = row.samples.indexOf(selected), end = row.samples.lastIndexOf(selected) + 1;
      const wide = (end - begin) * view.scale;
      context.strokeStyle = css(colors.ink);
      context.lineWidth = 1.5;
      if (begin >= 0) {
        inside(plot.x - 2, 0, plot.width + 4, plot.y, () =>
          context.strokeRect(x_of(begin), 1, wide, strips_of(view)[0].height - 2));
        inside(plot.x, plot.y, plot.width, plot.height, () =>
          context.strokeRect(x_of(begin), y_of(begin), wide, wide));
      }
    }
    if (!marked) return;
    context.fillStyle = css(colors.ink);
    const thick = Math.max(1, view.scale);
    context.globalAlpha = view.scale > 6 ? .25 : .6;
    if (marked.key !== undefined) inside(plot.x, 0, plot.width, plot.y + plot.height, () =>
      context.fillRect(x_of(marked.key), 0, thick, plot.y + plot.height));
    if (marked.query !== undefined) inside(plot.x - 8, plot.y, plot.width + 8, plot.height, () =>
      context.fillRect(plot.x - 8, y_of(marked.query), plot.width + 8, thick));
  };
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw_all);
  };
  const draw_all = () => { waiting = false; draw(view, colors); draw_over(); };

  // The key shows what this mask has.
  const describe = () => {
    const mask = view.mask, has = (first, end) => first.some((from, j) => from < end[j]);
    const known = {exact: view.mode === "exact", tiles: view.mode === "tiles", "of-row": row, "of-mask": !row,
      "has-lower": has(mask.lts, mask.lte), "has-upper": has(mask.uts, mask.ute), "has-future": mask.causal,
      "has-window": mask.window > 0, "has-borders": mask.tile > 0,
      "has-shared": row && row.users.some(users => users > 1),
      "has-padding": row && row.samples.includes(-1), "crossing-seen": row && crossing(mask)};
    for (const item of element("picture-key").children)
      item.hidden = [...item.classList].some(name => !known[name]);
    element("show-exact").classList.toggle("on", known.exact);
    element("show-tiles").classList.toggle("on", known.tiles);
    element("show-tiles").disabled = mask.classes.length === 0;
  };
  // Whether a query may see a key that is of other samples only. All later queries are asked about a key that several
  // samples have. About any other key it is enough to ask the first query of another sample, and those beside a border
  // of the rules.
  const crossing = mask => {
    if (mask.crossing !== undefined) return mask.crossing;
    const crosses = (i, j) => i >= 0 && i < mask.rows && strangers(i, j) && !hidden_by(mask, i, j);
    let other = row.length;  // the first query behind j that is of another sample than j
    for (let j = row.length - 1; j >= 0; --j) {
      if (j + 1 < row.length && row.samples[j + 1] !== row.samples[j]) other = j + 1;
      const asked = [other, mask.lts[j] - 1, mask.lte[j], mask.uts[j] - 1, mask.ute[j]];
      if (owners[j]) for (let i = j + 1; i < mask.rows; ++i) asked.push(i);
      if (asked.some(i => crosses(i, j))) return mask.crossing = true;
    }
    return mask.crossing = false;
  };

  const resize = () => {
    const width = stage.clientWidth, all = view.scale <= whole_scale() * 1.001;
    plot.width = Math.max(60, Math.min(width - plot.x - 2, Math.max(320, innerHeight - plot.y - 150)));
    plot.height = plot.width;
    const height = plot.y + plot.height + 2;
    stage.style.height = height + "px";
    for (const canvas of [base, over]) {
      canvas.width = Math.round(width * devicePixelRatio);
      canvas.height = Math.round(height * devicePixelRatio);
    }
    if (all) view.scale = 0;
    clamp();
    draw_all();
  };

  const zoom = (factor, x, y) => {  // the pair at the point stays there
    const key = view.x + x / view.scale, query = view.y + y / view.scale;
    view.scale = Math.max(whole_scale(), Math.min(biggest_token, view.scale * factor));
    view.x = key - x / view.scale;
    view.y = query - y / view.scale;
    clamp();
    redraw();
  };
  const zoom_at_middle = factor => zoom(factor, plot.width / 2, plot.height / 2);
  const move = (x, y) => { view.x += x; view.y += y; clamp(); redraw(); };
  const everything = () => { view.scale = 0; view.x = view.y = 0; clamp(); redraw(); };

  // Which key, and which query if it is over the mask.
  const pair_at = event => {
    const box = base.getBoundingClientRect();
    const x = event.clientX - box.left - plot.x, y = event.clientY - box.top - plot.y;
    const j = Math.floor(view.x + x / view.scale), i = Math.floor(view.y + y / view.scale);
    const is_key = x >= 0 && x < plot.width && j < view.mask.columns;
    const is_query = y >= 0 && y < plot.height && i < view.mask.rows;
    return {x, y, key: is_key && (is_query || y < 0) ? j : undefined,
            query: is_query && (is_key || x >= -10) ? i : undefined};
  };

  const about_token = i => {
    if (!row) return "";
    const sample = row.samples[i];
    if (sample < 0) return "  padding";
    const of = data.samples[sample], sequence = of && of.sequences[row.sequences[i]];
    const place = [sample + 1 + (of ? ": " + of.place : "")];
    if (sequence && sequence.name) place.push(sequence.name);
    if (row.users[i] > 1) place.push("shared by " + row.users[i] + " sequences");
    return "  " + quoted(row.tokens[i]) + "\n    position " + row.positions[i] + ", weight " + row.weights[i] +
      "\n    sample " + place.join(", ");
  };
  const about_pair = (mask, i, j) => {
    const range = name => mask[name + "ts"][j] < mask[name + "te"][j]
      ? "[" + mask[name + "ts"][j] + ", " + mask[name + "te"][j] + ")" : "empty";
    const apart = mask.window > 0 ? mask.positions[i] - mask.positions[j] : 0;
    const why = {
      visible: "visible" + (row && strangers(i, j) ? ", although of another sample" : ""),
      lower: "hidden: query " + i + " is in [lts, lte) of the key",
      upper: "hidden: query " + i + " is in [uts, ute) of the key",
      future: "hidden: the key is later than the query",
      window: "hidden: " + apart + " positions apart, window " + mask.window,
    }[rules[hidden_by(mask, i, j)]];
    const tile = (mask.classes[Math.floor(i / mask.tile)] || "")[Math.floor(j / mask.tile)];
    const bounds = "column " + j + ": [lts, lte) " + range("l") + ", [uts, ute) " + range("u");
    const classes = {"#": "all pairs visible", "/": "some pairs visible", ".": "no pair visible"};
    return why + "\n" + bounds + (tile ? "\ntile: " + classes[tile] : "");
  };
  const hover = event => {
    const {key, query} = marked = pair_at(event);
    draw_over();
    const texts = [];
    if (key !== undefined && query !== undefined) texts.push(about_pair(view.mask, query, key), "");
    if (query !== undefined) texts.push("query " + query + about_token(query));
    if (key !== undefined) texts.push("key " + key + about_token(key));
    texts.length ? show_tip(event, texts.join("\n")) : hide_tip();
  };
  const click = event => {
    const {key, query} = pair_at(event);
    if (!row || (key === undefined && query === undefined)) return;
    const token = key === undefined ? query : key, sample = row.samples[token];
    const is_one = key === undefined || query === undefined || row.samples[query] === sample;
    if (sample >= 0 && is_one) clicked(sample, token);
  };

  // One pointer drags, two zoom.
  const pointers = new Map();
  let moved = 0;
  base.addEventListener("pointerdown", event => {
    if (pointers.size === 0) moved = 0;
    pointers.set(event.pointerId, event);
    try { base.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
  });
  base.addEventListener("pointermove", event => {
    const before = pointers.get(event.pointerId);
    if (!before) return hover(event);
    const x = event.clientX - before.clientX, y = event.clientY - before.clientY;
    moved += Math.abs(x) + Math.abs(y);
    if (pointers.size === 2) {
      const other = [...pointers.values()].find(pointer => pointer !== before), box = base.getBoundingClientRect();
      const apart = pointer => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
      zoom(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2 - box.left - plot.x,
           (event.clientY + other.clientY) / 2 - box.top - plot.y);
    }
    pointers.set(event.pointerId, event);
    if (moved < 4) return;
    hide_tip();
    base.classList.add("dragged");
    move(-x / view.scale / pointers.size, -y / view.scale / pointers.size);
  });
  const lift = event => {
    if (pointers.delete(event.pointerId) && pointers.size === 0) base.classList.remove("dragged");
  };
  base.addEventListener("pointerup", event => {
    if (pointers.size === 1 && moved < 4) click(event);
    lift(event);
  });
  base.addEventListener("pointercancel", lift);
  base.addEventListener("pointerleave", () => { marked = null; hide_tip(); draw_over(); });
  base.addEventListener("dblclick", everything);
  base.addEventListener("wheel", event => {
    event.preventDefault();
    const {x, y} = pair_at(event), factor = Math.exp(-event.deltaY * (event.deltaMode ? .05 : .002));
    zoom(factor, Math.max(0, Math.min(x, plot.width)), Math.max(0, Math.min(y, plot.height)));
    hover(event);
  }, {passive: false});
  base.addEventListener("keydown", event => {
    const far = plot.width / view.scale / 8;
    const act = {"+": () => zoom_at_middle(1.5), "=": () => zoom_at_middle(1.5), "-": () => zoom_at_middle(1 / 1.5),
      "0": everything, ArrowLeft: () => move(-far, 0), ArrowRight: () => move(far, 0), ArrowUp: () => move(0, -far),
      ArrowDown: () => move(0, far)}[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
  });
  element("zoom-in").onclick = () => zoom_at_middle(2);
  element("zoom-out").onclick = () => zoom_at_middle(.5);
  element("zoom-all").onclick = everything;
  const mode = name => { view.mode = name; describe(); redraw(); };
  element("show-exact").onclick = () => mode("exact");
  element("show-tiles").onclick = () => mode("tiles");
  element("mask").onchange = event => {
    view.mask = data.masks[event.target.value];
    if (!view.mask.classes.length) view.mode = "exact";
    clamp();
    describe();
    redraw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colors = picture_colors(); redraw(); });
  new ResizeObserver(resize).observe(stage);
  describe();
  resize();

  return {
    select: sample => { selected = sample; draw_over(); },
    mark: token => { marked = token === undefined ? null : {key: token, query: token}; draw_over(); },
    go_to: (begin, end) => {
      view.scale = Math.min(24, plot.width / (end - begin) / 1.1);
      view.x = (begin + end - plot.width / view.scale) / 2;
      view.y = (begin + end - plot.height / view.scale) / 2;
      clamp();
      redraw();
    },
  };
};
)js";

}  // namespace colonnade
