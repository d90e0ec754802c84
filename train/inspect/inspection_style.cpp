#include "train/inspect/inspection_script.h"

namespace colonnade {

std::string inspection_style() {
    return R"(
body{max-width:1760px}.facts{display:flex;flex-wrap:wrap;gap:4px 22px;margin:8px 0}.facts span{color:var(--faint)}
.facts b{font-weight:600;overflow-wrap:anywhere}a{color:var(--c0)}
.note{border:1px solid var(--axis);border-radius:9px;padding:0 8px;font-size:12px;white-space:nowrap;color:var(--faint)}
.note.suspicious{border-color:var(--warn);color:var(--warn)}.note.dropped{border-color:var(--c1);color:var(--c1)}
#notes td:nth-child(2){font-weight:600;white-space:nowrap}
.bench{display:grid;grid-template-columns:minmax(0,1fr);gap:0 36px}
@media(min-width:1050px){.bench:not(.alone){grid-template-columns:minmax(0,11fr) minmax(0,10fr)}
.bench:not(.alone) #sample{max-height:calc(100vh - 330px)}}
.bench.alone #stage{max-width:1000px}.bench h2{margin-top:24px}
.tools{display:flex;flex-wrap:wrap;gap:8px 12px;align-items:center;margin:8px 0}
button,select,input{font:inherit;font-size:13px;color:var(--ink);background:var(--paper);border:1px solid var(--axis);
border-radius:6px;padding:2px 10px;max-width:100%}button{cursor:pointer}button:hover{background:var(--grid)}
button:disabled{color:var(--axis);cursor:default}
.pair{display:inline-flex}.pair button{border-radius:0;margin-left:-1px}
.pair button:first-child{border-radius:6px 0 0 6px;margin:0}
.pair button:last-child{border-radius:0 6px 6px 0}
button.on{background:var(--c0);border-color:var(--c0);color:var(--paper)}
#filter{flex:1;min-width:140px}
#stage{position:relative;margin:10px 0}#stage canvas{position:absolute;left:0;top:0;width:100%;height:100%}
#base{cursor:crosshair;touch-action:none}#base.dragged{cursor:grabbing}
#base:focus-visible{outline:1px solid var(--axis)}
#over{pointer-events:none}#tip{max-width:560px;white-space:pre-wrap;overflow-wrap:anywhere}
.key-list{list-style:none;display:flex;flex-wrap:wrap;gap:3px 18px;margin:8px 0;padding:0;font-size:12px;
color:var(--faint)}
.key-list li[hidden]{display:none}.key-list i{display:inline-block;height:11px;min-width:14px;margin-right:6px;
vertical-align:-1px;border-radius:2px;border:1px solid transparent}
.key-list .sample-colors{width:44px;background:linear-gradient(90deg,var(--c0) 20%,var(--c2) 20% 40%,var(--c3) 40% 60%,
var(--c6) 60% 80%,var(--c4) 80%)}
.key-list .alone,.key-list .full{background:var(--c0)}.key-list .crossing{background:var(--warn)}
.key-list .partial{background:var(--c1)}.key-list .none{background:var(--grid)}
.key-list .lower{background:color-mix(in srgb,var(--faint) 13%,var(--paper));border-color:var(--grid)}
.key-list .upper{background:color-mix(in srgb,var(--c3) 20%,var(--paper))}.key-list .future{border-color:var(--axis)}
.key-list .window{background:color-mix(in srgb,var(--c1) 20%,var(--paper))}
.key-list .border{height:0;border-width:1px 0 0;border-color:var(--axis);vertical-align:3px}
.key-list .padding{background:color-mix(in srgb,var(--faint) 35%,var(--paper))}
.key-list .shared{background:linear-gradient(var(--c0) 60%,var(--ink) 60%)}#picture-key .learned{background:var(--c1)}
#list{position:relative;list-style:none;margin:8px 0;padding:0;max-height:126px;overflow:auto;
border:1px solid var(--grid);
border-radius:8px;font-size:13px}
#list li{display:flex;gap:8px;align-items:baseline;padding:1px 10px;cursor:pointer}
#list li:hover{background:var(--grid)}
#list li.on{background:color-mix(in srgb,var(--c0) 16%,var(--paper))}
#list i{width:10px;height:10px;border-radius:2px;flex:none}#list i.absent{border:1px solid var(--axis)}
#list b{min-width:26px;text-align:right;font-variant-numeric:tabular-nums;color:var(--faint);font-weight:400}
#list .place{flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#list li>:last-child{white-space:nowrap;font-variant-numeric:tabular-nums}
#sample{position:relative;overflow:auto;max-height:80vh;border:1px solid var(--grid);border-radius:8px;
padding:2px 14px 14px}
#sample h3{display:flex;flex-wrap:wrap;gap:4px 12px;align-items:baseline;font-weight:400;margin:10px 0}
#sample h4{display:flex;gap:10px;font-size:13px;font-weight:400;margin:14px 0 6px}
.tokens{font:13px/1.75 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;white-space:break-spaces;
overflow-wrap:anywhere;tab-size:4}
.tokens>span{padding:1px 0;border-radius:2px;box-shadow:inset 1px 0 var(--edge);
--edge:color-mix(in srgb,var(--axis) 55%,transparent)}
.tokens>span:hover{outline:1.5px solid var(--ink)}
.tokens>.learned,.key-list .learned{background:color-mix(in srgb,var(--c1) calc(var(--w,.6)*50%),var(--paper))}
.tokens>.unlearned{background:color-mix(in srgb,var(--c3) calc(var(--w,.6)*50%),var(--paper))}
.tokens>.learned,.tokens>.unlearned{--edge:color-mix(in srgb,var(--c1) 75%,transparent)}
.tokens>.special{border:1px solid var(--c3);border-radius:4px;padding:0 4px;margin:0 1px;font-size:11px;box-shadow:none}
.tokens>.shared-text{opacity:.45}.tokens>.pointed{outline:2px solid var(--c0)}
.tokens .sign{color:var(--faint);font-weight:400}
.tokens button{font-family:system-ui,sans-serif;font-size:12px;margin-right:4px}
.key-list .token{border-color:var(--grid);border-left-color:var(--axis)}
.key-list .special{border-color:var(--c3);border-radius:4px}
.key-list .shared-text{background:var(--grid)}
)";
}

}  // namespace colonnade
