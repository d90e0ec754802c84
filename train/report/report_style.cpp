#include "train/report/report_style.h"

#include "train/report/chart.h"
#include "train/report/html.h"

namespace colonnade {
namespace {

constexpr const char* style = R"(
*{box-sizing:border-box}body{margin:0 auto;max-width:1400px;padding:24px;background:var(--paper);color:var(--ink);
font:14px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:32px 0 10px;padding-bottom:4px;border-bottom:1px solid var(--grid)}
h3{font-size:14px;margin:18px 0 6px}p{margin:6px 0}.faint{color:var(--faint)}
header{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:baseline}
.state{padding:1px 10px;border-radius:10px;border:1px solid var(--axis);font-weight:600;font-size:13px}
.state.running,.state.finished{border-color:var(--c2);color:var(--c2)}
.state.failed,.state.killed{border-color:var(--warn);color:var(--warn)}.state.stopped{border-color:var(--c6);color:var(--c6)}
progress{width:100%;height:8px;accent-color:var(--c0)}
.figures{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.figures div{border:1px solid var(--grid);border-radius:8px;padding:6px 14px}
.figures b{display:block;font-size:18px;font-variant-numeric:tabular-nums}.figures span{color:var(--faint);font-size:12px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:14px}
.charts>div{border:1px solid var(--grid);border-radius:8px;padding:6px;min-width:0}
.charts>div.large{grid-column:1/-1}.charts>div.large svg{max-height:420px}
svg{width:100%;height:auto;display:block}.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));
gap:24px;align-items:start}
svg.mask{max-width:380px}svg.bars{max-width:560px}
.mask .none{fill:var(--grid)}.mask .full,.key.full{fill:var(--c0);background:var(--c0)}
.mask .partial{fill:var(--c1)}.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 4px 0 12px}
.key.partial{background:var(--c1)}.key.none{background:var(--grid)}.bars rect{fill:var(--c0)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
th,td{text-align:left;vertical-align:top;padding:3px 14px 3px 0;border-bottom:1px solid var(--grid);white-space:pre-wrap;
overflow-wrap:anywhere;max-width:60ch}th{color:var(--faint);font-weight:600;white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--grid);padding:10px;border-radius:6px;font-size:12px;margin:6px 0}
.sample{border:1px solid var(--grid);border-radius:8px;padding:4px 14px 10px;margin:10px 0}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,260px),1fr));gap:12px}
.warning{color:var(--warn)}summary{cursor:pointer;color:var(--faint)}
#tip{position:fixed;display:none;pointer-events:none;background:var(--paper);border:1px solid var(--axis);border-radius:6px;
padding:4px 9px;font-size:12px;z-index:9;white-space:pre;font-variant-numeric:tabular-nums}
.cursor{stroke:var(--axis);pointer-events:none}
)";

// The box at the pointer.
constexpr const char* tip_script = R"(
"use strict";
const tip = document.getElementById("tip");
const hide_tip = () => { tip.style.display = "none"; };
const show_tip = (event, text) => {
  tip.textContent = text;
  tip.style.display = "block";
  const right = event.clientX + 16 + tip.offsetWidth > innerWidth, low = event.clientY + 12 + tip.offsetHeight > innerHeight;
  tip.style.left = Math.max(0, right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16) + "px";
  tip.style.top = Math.max(0, low ? event.clientY - 12 - tip.offsetHeight : event.clientY + 12) + "px";
};
)";

// Shows the values at the step under the pointer.
constexpr const char* chart_script = R"(
const shape = (svg, name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  return svg.appendChild(node);
};
const nearest = (steps, step) => {
  let low = 0, high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle; else high = middle;
  }
  return step - steps[low] < steps[high] - step ? low : high;
};
for (const svg of document.querySelectorAll("svg.chart")) {
  const data = JSON.parse(svg.nextElementSibling.textContent);
  const [left, top, width, height] = data.plot, [x0, x1] = data.x, [y0, y1] = data.y;
  const share = v => data.logarithmic ? Math.log(v / y0) / Math.log(y1 / y0) : (v - y0) / (y1 - y0);
  let shown = [];
  const clear = () => { for (const node of shown) node.remove(); shown = []; hide_tip(); };
  svg.addEventListener("pointerleave", clear);
  svg.addEventListener("pointermove", event => {
    clear();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    if (at.x < left || at.x > left + width) return;
    const step = x0 + (at.x - left) / width * (x1 - x0);
    const texts = [];
    for (const line of data.lines) {
      const i = nearest(line.steps, step), x = left + (line.steps[i] - x0) / (x1 - x0) * width;
      const y = top + (1 - share(line.values[i])) * height;
      shown.push(shape(svg, "circle", {cx: x, cy: y, r: 4, class: "dots c" + line.color}));
      texts.push(line.name + "  " + line.values[i] + "  at step " + line.steps[i]);
    }
    shown.push(shape(svg, "line", {x1: at.x, x2: at.x, y1: top, y2: top + height, class: "cursor"}));
    show_tip(event, texts.join("\n"));
  });
}
)";

}  // namespace

std::string html_page(const std::string& title, const std::string& body, const PageParts& own) {
    return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
           "<meta name=\"viewport\" content=\"width=device-width\"/>\n"
           "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
           "script-src 'unsafe-inline'\"/>\n<title>" +
           escaped(title) + "</title>\n<style>\n" + chart_style() + style + own.style + "</style>\n</head>\n<body>\n" +
           body + "<div id=\"tip\"></div>\n<script>" + tip_script + chart_script + own.script +
           "</script>\n</body>\n</html>\n";
}

}  // namespace colonnade
