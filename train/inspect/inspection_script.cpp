#include "train/inspect/inspection_script.h"

namespace colonnade {
namespace {

// What both halves of the page read.
constexpr const char* data_script = R"js(
const data = JSON.parse(document.querySelector("script[type='application/json']").textContent);
const element = id => document.getElementById(id);
// A list of numbers is plain, or runs: first value, count, step.
const unpacked = list => {
  if (Array.isArray(list)) return list;
  const values = [], runs = list.runs;
  for (let r = 0; r < runs.length; r += 3)
    for (let k = 0; k < runs[r + 1]; ++k) values.push(runs[r] + k * runs[r + 2]);
  return values;
};
const unpack = (of, names) => { for (const name of names) of[name] = unpacked(of[name]); };
unpack(data.tokens, ["ids"]);
const special_tokens = new Set(data.tokens.special);
const row = data.row;
if (row) unpack(row, ["tokens", "positions", "weights", "samples", "sequences", "users"]);
for (const mask of data.masks) {
  unpack(mask, ["lts", "lte", "uts", "ute", "positions"]);
  mask.classes = mask.classes.map(line => line.replace(/(\d+)(\D)/g, (_, count, tile) => tile.repeat(count)));
}
for (const sample of data.samples)
  for (const sequence of sample.sequences) {
    unpack(sequence, ["weights", "rows"]);
    sequence.tokens = sequence.tokens ? unpacked(sequence.tokens) : sequence.rows.map(i => row.tokens[i]);
    sequence.learned = sequence.weights.reduce((count, weight) => count + (weight !== 0), 0);
  }

// The samples whose sequences have token j of the row, if there are several: owners[j] is a set of them, else undefined.
const owners = [];
data.samples.forEach((sample, number) => {
  for (const sequence of row ? sample.sequences : [])
    for (const j of sequence.rows)
      if (row.samples[j] !== number) (owners[j] ||= new Set([row.samples[j]])).add(number);
});
const strangers = (i, j) => row.samples[i] !== row.samples[j] && !(owners[j] && owners[j].has(row.samples[i]));

// The text of a token on one line.
const quoted = token => JSON.stringify(data.tokens.texts[token]);
const short = (token, most) => {
  const text = [...data.tokens.texts[token].replace(/\n/g, "↵").replace(/[\x00-\x1f\x7f]/g, "·")];
  return text.length > most ? text.slice(0, most - 1).join("") + "…" : text.join("");
};

// Colours of the style, as [red, green, blue].
const style_color = name => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim().slice(1);
  const step = hex.length === 3 ? 1 : 2;
  return [0, 1, 2].map(k => parseInt(hex.slice(k * step, k * step + step).padStart(2, hex[k * step]), 16));
};
const mixed = (color, under, share) => color.map((c, k) => Math.round(c * share + under[k] * (1 - share)));
const css = color => "rgb(" + color.join(" ") + ")";
const sample_hues = ["c0", "c2", "c3", "c6", "c4"], branch_shares = [1, .6, .8, .42];
// Samples take turns at the hues; a sample's branches at the shades.
const sample_color = (sample, sequence) => sample < 0 ? mixed(style_color("faint"), style_color("paper"), .35)
  : mixed(style_color(sample_hues[sample % sample_hues.length]), style_color("paper"), branch_shares[sequence % 4]);
)js";

constexpr const char* start_script = R"js(
const picture = data.masks.length ? start_picture((sample, at) => samples && samples.show(sample, at)) : null;
const samples = data.samples.length ? start_samples(picture) : null;
)js";

}  // namespace

std::string inspection_script() {
    return std::string("{\n") + data_script + mask_colors_script + mask_drawing_script + picture_script +
           sample_script + start_script + "}\n";
}

}  // namespace colonnade
