#include "train/inspect/inspection_script.h"

namespace colonnade {

const char* const sample_script = R"js(
// The list of samples, and the tokens of one. Returns show(sample, token of the row, if one is meant).
const start_samples = picture => {
  const pane = element("sample"), list = element("list"), filter = element("filter");
  const most_listed = 500, tokens_at_once = 2000, tokens_at_first = 20000, shared_shown = 40;
  let shown = -1, matches = [], filling = 0, sought;
  const add = (parent, tag, name, text) => {
    const node = parent.appendChild(document.createElement(tag));
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const counted = (number, what) => number.toLocaleString("en") + " " + what + (number === 1 ? "" : "s");
  const learned_text = of => {
    const all = of.reduce((sum, sequence) => sum + sequence.tokens.length, 0);
    const learned = of.reduce((sum, sequence) => sum + sequence.learned, 0);
    return learned === 0 ? "nothing learned" : (100 * learned / all).toPrecision(2) * 1 + " % learned";
  };
  const rows_of = sample => sample.sequences.flatMap(sequence => sequence.rows);

  // Line ends, tabs and other control characters get a sign; line ends also break the line.
  const signs = (span, text) => {
    if (text === "") return add(span, "b", "sign", "∅");
    for (const part of text.split(/([\x00-\x1f\x7f])/)) {
      if (!/^[\x00-\x1f\x7f]$/.test(part)) { if (part) span.append(part); continue; }
      const code = part.charCodeAt(0), control = String.fromCharCode(code === 127 ? 0x2421 : 0x2400 + code);
      add(span, "b", "sign", {"\n": "↵", "\t": "⇥"}[part] || control);
      if (part === "\n" || part === "\t") span.append(part);
    }
  };
  const token_span = (sequence, k) => {
    const token = sequence.tokens[k], weight = sequence.weights[k], span = document.createElement("span");
    span.sequence = sequence;
    span.k = k;
    if (special_tokens.has(token)) span.classList.add("special");
    if (weight !== 0) {
      span.classList.add(weight > 0 ? "learned" : "unlearned");
      if (Math.abs(weight) !== 1) span.style.setProperty("--w", Math.min(1, .25 + .5 * Math.abs(weight)));
    }
    if (k < sequence.shared) span.classList.add("shared-text");
    signs(span, data.tokens.texts[token]);
    return span;
  };

  // Adds the tokens [begin, end) before `before`, a part at a time so that the page stays alive.
  const fill = (parent, sequence, begin, end, before) => {
    const turn = filling, pause = Math.min(end, begin + tokens_at_first);
    const next = k => {
      if (turn !== filling) return;
      const part = document.createDocumentFragment(), stop = Math.min(pause, k + tokens_at_once);
      for (; k < stop; ++k) part.append(token_span(sequence, k));
      parent.insertBefore(part, before);
      point();
      if (k < pause) setTimeout(next, 0, k);
      else if (k < end) more(parent, "show more: " + counted(end - k, "token") + " left", before,
                             () => fill(parent, sequence, k, end, before));
    };
    next(begin);
  };
  const more = (parent, text, before, then) => {
    const button = document.createElement("button");
    button.textContent = text;
    button.onclick = () => { button.remove(); then(); };
    parent.insertBefore(button, before);
  };

  const show_sequence = (sequence, several) => {
    const block = add(pane, "article"), heading = add(block, "h4");
    if (several) add(heading, "b", "", sequence.name || "sequence");
    add(heading, "span", sequence.learned ? "faint" : "warning",
        counted(sequence.tokens.length, "token") + ", " + (sequence.learned || "nothing") + " learned");
    const tokens = add(block, "div", "tokens");
    const hidden = sequence.shared > shared_shown + 10 ? sequence.shared - shared_shown : 0;
    if (hidden) {
      const end = document.createComment("");
      tokens.append(end);
      more(tokens, counted(hidden, "token") + " as in the sequence before: show", end,
           () => fill(tokens, sequence, 0, hidden, end));
    }
    fill(tokens, sequence, hidden, sequence.tokens.length, null);
  };

  const show = (index, token) => {
    const sample = data.samples[index];
    if (!sample) return;
    ++filling;
    shown = index;
    pane.textContent = "";
    const heading = add(pane, "h3"), rows = rows_of(sample);
    add(heading, "b", "", index + 1 + "  " + sample.place);
    for (const note of sample.notes) add(heading, "span", "note suspicious", note);
    add(heading, "span", "faint", [sample.sequences.length > 1 && counted(sample.size, "token") + ", shared ones once",
      row && !rows.length && "not in this row"].filter(text => text).join(", "));
    if (picture && rows.length) {
      const last = rows.reduce((most, i) => Math.max(most, i)), first = rows.reduce((least, i) => Math.min(least, i));
      add(heading, "button", "", "zoom to it").onclick = () => picture.go_to(first, last + 1);
    }
    sought = token;
    pane.scrollTop = 0;
    for (const sequence of sample.sequences) show_sequence(sequence, sample.sequences.length > 1 || sequence.name);
    if (picture) picture.select(rows.length ? index : -1);
    for (const item of list.children) item.classList.toggle("on", item.sample === index);
    const item = [...list.children].find(child => child.sample === index);
    if (item) list.scrollTop = item.offsetTop - list.clientHeight / 2;
    try { history.replaceState(null, "", "#sample=" + (index + 1)); } catch { /* a page without an address */ }
  };
  // Brings the token that was clicked on into view, as soon as it is there.
  const point = () => {
    if (sought === undefined) return;
    const span = [...pane.querySelectorAll(".tokens>span")].find(node => node.sequence.rows[node.k] === sought);
    if (!span) return;
    sought = undefined;
    span.classList.add("pointed");
    pane.scrollTop = span.offsetTop - pane.clientHeight / 3;
  };

  const show_list = () => {
    const wanted = filter.value.trim().toLowerCase();
    matches = data.samples.map((_, index) => index).filter(index =>
      [data.samples[index].place, ...data.samples[index].notes].some(text => text.toLowerCase().includes(wanted)));
    list.textContent = "";
    for (const index of matches.slice(0, most_listed)) {
      const sample = data.samples[index], item = add(list, "li"), in_row = rows_of(sample).length > 0;
      item.sample = index;
      const swatch = add(item, "i", in_row ? "" : "absent"), learned = learned_text(sample.sequences);
      if (in_row) swatch.style.background = "var(--" + sample_hues[index % sample_hues.length] + ")";
      add(item, "b", "", index + 1);
      add(item, "span", "place", sample.place);
      for (const note of sample.notes) add(item, "span", "note suspicious", note);
      add(item, "span", learned === "nothing learned" ? "warning" : "faint",
          counted(sample.size, "token") + ", " + learned);
      item.tabIndex = 0;
      item.onclick = () => show(index);
      item.onkeydown = event => { if (event.key === "Enter") show(index); };
      item.classList.toggle("on", index === shown);
    }
    element("matches").textContent = matches.length === data.samples.length ? counted(matches.length, "sample")
      : matches.length + " of " + counted(data.samples.length, "sample");
  };
  const step = by => {
    if (!matches.length) return;
    const at = matches.indexOf(shown);
    show(matches[at < 0 ? 0 : (at + by + matches.length) % matches.length]);
  };
  element("previous").onclick = () => step(-1);
  element("next").onclick = () => step(1);
  filter.oninput = () => {
    show_list();
    if (matches.length && !matches.includes(shown)) show(matches[0]);
  };

  pane.addEventListener("pointerover", event => {
    const span = event.target.closest(".tokens>span");
    if (!span) return hide_tip(), picture && picture.mark();
    const {sequence, k} = span, token = sequence.tokens[k], at = sequence.rows[k], weight = sequence.weights[k];
    const lines = [quoted(token), "id " + data.tokens.ids[token] + (special_tokens.has(token) ? ", control token" : ""),
                   "position " + k, weight === 0 ? "not learned" : "weight " + weight];
    if (at !== undefined) lines.push("token " + at + " of the row");
    show_tip(event, lines.join("\n"));
    if (picture) picture.mark(at);
  });
  pane.addEventListener("pointerleave", () => { hide_tip(); if (picture) picture.mark(); });
  pane.addEventListener("click", event => {
    const span = event.target.closest(".tokens>span"), at = span ? span.sequence.rows[span.k] : undefined;
    if (picture && at !== undefined) picture.go_to(at - 12, at + 13);
  });

  const from_address = () => Number((location.hash.match(/^#sample=(\d+)$/) || [])[1]) - 1;
  addEventListener("hashchange", () => {
    if (!data.samples[from_address()]) return;
    show(from_address());
    element("samples").scrollIntoView({block: "nearest"});
  });
  show_list();
  show(data.samples[from_address()] ? from_address() : data.shown);
  return {show};
};
)js";

}  // namespace colonnade
