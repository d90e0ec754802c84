// The page of an inspection in a browser. Scripts find their way by what a user sees: the box at the pointer, the list,
// the colours of pixels.

#include <algorithm>
#include <map>
#include <set>

#include "attention/mask_families.h"
#include "data/text/unicode.h"
#include "tests/support/browser.h"
#include "tests/support/inspected_pack.h"
#include "train/inspect/inspection_page.h"

namespace colonnade {
namespace {

// What the scripts of the tests share.
const std::string tools = R"js(
const element = id => document.getElementById(id);
const data = JSON.parse(document.querySelector("script[type='application/json']").textContent);
const base = element("base"), box = base.getBoundingClientRect(), drawn = base.getContext("2d");
const send = (name, x, y, more) => base.dispatchEvent(
  new PointerEvent(name, {clientX: box.left + x, clientY: box.top + y, pointerId: 1, bubbles: true, ...more}));
const tip_at = (x, y) => { send("pointermove", x, y); return tip.style.display === "none" ? "" : tip.textContent; };
const number_in = (text, name) => { const found = text.match(name + " (\\d+)"); return found ? Number(found[1]) : -1; };
const click = (x, y) => { send("pointerdown", x, y); send("pointerup", x, y); };
const choose = index => { element("mask").value = index; element("mask").dispatchEvent(new Event("change")); };
const heading = () => element("sample").querySelector("h3 b").textContent;
const texts = () => [...element("sample").querySelectorAll(".tokens")].map(node => {
  const copy = node.cloneNode(true);
  copy.querySelectorAll(".sign, button").forEach(sign => sign.remove());
  return copy.textContent;
});
// For points all over the picture: query, key, what the box says, the colour; 0 beside another colour, as on a line.
const sweep = () => {
  const points = [], pixels = new Uint32Array(drawn.getImageData(0, 0, base.width, base.height).data.buffer);
  const color = at => [-1, 1, -base.width, base.width].every(by => pixels[at + by] === pixels[at]) ? pixels[at] : 0;
  for (let y = 8; y < box.height; y += 17)
    for (let x = 8; x < box.width; x += 17) {
      const text = tip_at(x, y), query = number_in(text, "query"), key = number_in(text, "key");
      if (query >= 0 && key >= 0) points.push([query, key, text.split("\n")[0], color(y * base.width + x)]);
    }
  return points;
};
)js";

/// The text of a sequence as the page must show it beside its signs; a sign alone stands for \r.
std::string text_of(const InspectedSequence& sequence) {
    std::string text;
    for (const std::string& token : sequence.texts) text += replace_ill_formed(token);
    std::erase(text, '\r');
    return text;
}

class InspectionBrowser : public FileTest {
  protected:
    void SetUp() override {
        if (browser().empty()) GTEST_SKIP() << "no chromium";
        FileTest::SetUp();
    }
    Json shown(const Inspection& inspection, const std::string& script, const std::string& fragment = "") const {
        Json result = run_in_browser(folder_, inspection_page(inspection), tools + script, fragment);
        EXPECT_EQ(result["errors"], Json::array());
        return result;
    }
};

/// A mask of every family, and one with a window that counts by positions: branches behind a stem see its end.
Inspection all_families(int64_t length) {
    Inspection made{.title = "families"};
    for (const MaskFamily& family : mask_families())
        made.masks.push_back(
            inspected_mask(std::string(family.name), family.build(default_parameters(length, length)), 6));
    const std::vector<WalkedSequence> walk = {{0, 10}, {6, 4}, {6, 4}, {6, 4}};
    const ColumnMask window = tree_mask(length, walk).with_sliding_window(3, tree_positions(length, walk));
    EXPECT_EQ(window.position_window, 3);
    made.masks.push_back(inspected_mask("window by positions", window, 6));
    return made;
}

// The pixel and the box at the pointer agree with dense(), for every family.
TEST_F(InspectionBrowser, PairsAreThoseOfTheMask) {
    const Inspection inspection = all_families(24);
    Json result = shown(inspection, R"js(
result.masks = data.masks.map((_, index) => { choose(index); return sweep(); });
)js");
    ASSERT_EQ(result["masks"].size(), inspection.masks.size());
    for (size_t m = 0; m < inspection.masks.size(); ++m) {
        const ColumnMask& mask = inspection.masks[m].mask;
        const std::vector<uint8_t> dense = mask.dense();
        std::set<std::pair<int64_t, int64_t>> pairs;
        std::map<uint32_t, std::set<bool>> meanings;  // of a colour
        for (const Json& point : result["masks"][m]) {
            const int64_t query = point[0], key = point[1];
            const bool visible = dense[static_cast<size_t>(query * mask.columns + key)];
            EXPECT_EQ(point[2].get<std::string>().starts_with("visible"), visible)
                << inspection.masks[m].name << " query " << query << ", key " << key;
            pairs.insert({query, key});
            if (point[3] != 0) meanings[point[3]].insert(visible);
        }
        EXPECT_EQ(pairs.size(), size_t{24 * 24}) << inspection.masks[m].name;  // a token has more than 17 pixels
        for (const auto& [color, visible] : meanings)
            EXPECT_EQ(visible.size(), 1U) << inspection.masks[m].name << ", colour " << color;
    }
}

TEST_F(InspectionBrowser, TilesHaveTheColoursOfTheirClasses) {
    const Inspection inspection = all_families(24);
    Json result = shown(inspection, R"js(
element("show-tiles").click();
result.masks = data.masks.map((_, index) => { choose(index); return sweep(); });
)js");
    std::map<uint32_t, std::set<char>> classes;  // of a colour
    for (size_t m = 0; m < inspection.masks.size(); ++m)
        for (const Json& point : result["masks"][m])
            if (const InspectedMask& mask = inspection.masks[m]; point[3] != 0)
                classes[point[3]].insert(mask.tiles.classes[point[0].get<size_t>() / 6][point[1].get<size_t>() / 6]);
    EXPECT_EQ(classes.size(), 3U);
    for (const auto& [color, of] : classes) EXPECT_EQ(of.size(), 1U);
}

TEST_F(InspectionBrowser, AClickOnASegmentShowsItsSample) {
    Inspection inspection = inspected_pack(500, 7, 64);
    InspectedSequence& sequence = inspection.samples[2].sequences[0];
    sequence.texts[5] = inspection.row.texts[static_cast<size_t>(sequence.rows[5])] =
        "</script><b>\"x\"</b>  &amp;\t'\r\n\n\xFF";
    Json result = shown(inspection, R"js(
result.strip = []; result.diagonal = [];
const visit = (list, x, y) => {
  const key = number_in(tip_at(x, y), "key");
  click(x, y);
  element("sample").querySelector(".pointed").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  if (number_in(tip.textContent, "token") !== key) result.errors.push("points elsewhere than at token " + key);
  if (list.length && list[list.length - 1].heading === heading()) return;
  list.push({heading: heading(), texts: texts(), learned: element("sample").querySelectorAll(".learned").length,
             special: element("sample").querySelectorAll(".special").length,
             shared: element("sample").querySelectorAll(".shared-text").length});
};
for (let x = 0; x < box.width; x += 2) {
  const text = tip_at(x, 8);
  if (number_in(text, "key") >= 0 && !text.includes("padding")) visit(result.strip, x, 8);
}
for (let y = 0; y < box.height; y += 12)
  for (let x = Math.max(0, y - 100); x < Math.min(box.width, y); ++x) {
    const text = tip_at(x, y), query = number_in(text, "query");
    if (query >= 0 && query === number_in(text, "key") && !text.includes("padding")) visit(result.diagonal, x, y);
  }
)js");
    for (const char* where : {"strip", "diagonal"}) {
        const Json& visits = result[where];
        ASSERT_EQ(visits.size(), size_t{7}) << where;
        for (size_t s = 0; s < 7; ++s) {
            const InspectedSample& sample = inspection.samples[s];
            EXPECT_EQ(visits[s]["heading"], fmt::format("{}  {}", s + 1, sample.place));
            int64_t learned = 0, special = 0, shared = 0;
            ASSERT_EQ(visits[s]["texts"].size(), sample.sequences.size());
            for (size_t k = 0; k < sample.sequences.size(); ++k) {
                EXPECT_EQ(visits[s]["texts"][k], text_of(sample.sequences[k])) << where << " " << s;
                learned += std::ssize(sample.sequences[k].weights) - std::ranges::count(sample.sequences[k].weights, 0);
                shared += sample.sequences[k].shared;
                special += std::ranges::count(sample.sequences[k].special, 1);
            }
            EXPECT_EQ(visits[s]["learned"], learned);
            EXPECT_EQ(visits[s]["special"], special);
            EXPECT_EQ(visits[s]["shared"], shared);
        }
    }
}

TEST_F(InspectionBrowser, ZoomKeepsThePairAtThePointer) {
    Json result = shown(inspected_pack(2000, 6, 64), R"js(
const pair = (x, y) => { const text = tip_at(x, y); return [number_in(text, "query"), number_in(text, "key")]; };
const wheel = deltaY => base.dispatchEvent(
  new WheelEvent("wheel", {clientX: box.left + 420, clientY: box.top + 400, deltaY, cancelable: true}));
result.before = pair(420, 400);
result.corner_before = pair(600, 600);
for (let k = 0; k < 4; ++k) wheel(-300);
result.near = pair(420, 400);
result.corner_near = pair(600, 600);
send("pointerdown", 420, 400); send("pointermove", 500, 460); send("pointerup", 500, 460);
result.dragged = pair(500, 460);
base.dispatchEvent(new Event("dblclick"));
result.after = pair(420, 400);
base.dispatchEvent(new KeyboardEvent("keydown", {key: "+"}));
base.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
result.keys = pair(420, 400);
)js");
    const auto differ = [&](const char* a, const char* b) {
        return std::max(std::abs(result[a][0].get<int>() - result[b][0].get<int>()),
                        std::abs(result[a][1].get<int>() - result[b][1].get<int>()));
    };
    EXPECT_LE(differ("before", "near"), 1);
    EXPECT_LE(differ("dragged", "near"), 1);
    EXPECT_EQ(result["after"], result["before"]);
    EXPECT_LT(result["corner_near"][1], result["corner_before"][1]);
    EXPECT_GT(result["keys"][1], result["after"][1]);
}

TEST_F(InspectionBrowser, TheFragmentALinkAndTheFilterChooseASample) {
    Json result = shown(inspected_pack(3000, 6), R"js(
result.fragment = heading();
document.querySelector("#notes a[href='#sample=8']").click();
await wait();
result.link = heading();
element("next").click();
result.next = heading();
element("next").click();
result.around = heading();
const filter = element("filter");
filter.value = "Nothing L";
filter.dispatchEvent(new Event("input"));
result.filtered = heading();
result.matches = element("list").children.length;
result.address = location.hash;
)js",
                        "#sample=3");
    EXPECT_EQ(result["fragment"], "3  chats.jsonl:7");
    EXPECT_EQ(result["link"], "8  chats.jsonl:1001");
    EXPECT_EQ(result["next"], "9  chats.jsonl:1002");
    EXPECT_EQ(result["around"], "1  chats.jsonl:1");
    EXPECT_EQ(result["filtered"], "4  chats.jsonl:10");
    EXPECT_EQ(result["matches"], 1);
    EXPECT_EQ(result["address"], "#sample=4");
}

// A key of another sample that a query may see is drawn in a colour of its own, which the key then explains.
TEST_F(InspectionBrowser, ShowsAMaskThatLetsSamplesSeeEachOther) {
    Inspection inspection = inspected_pack(400, 3, 64);
    const int64_t length = std::ssize(inspection.row.ids);
    inspection.masks = {inspected_mask("right", inspection.masks[0].mask, 64),
                        inspected_mask("wrong", causal_mask(length, length), 64)};
    Json result = shown(inspection, R"js(
result.seen = data.masks.map((_, index) => {
  choose(index);
  return {explained: !document.querySelector(".crossing-seen").hidden, points: sweep()};
});
)js");
    EXPECT_EQ(result["seen"][0]["explained"], false);
    EXPECT_EQ(result["seen"][1]["explained"], true);
    std::map<uint32_t, std::set<bool>> crosses;  // of the colour of a visible pair
    for (const Json& seen : result["seen"])
        for (const Json& point : seen["points"])
            if (point[3] != 0 && point[2].get<std::string>().starts_with("visible"))
                crosses[point[3]].insert(inspection.row.samples[point[0].get<size_t>()] !=
                                         inspection.row.samples[point[1].get<size_t>()]);
    int64_t colors = 0;
    for (const auto& [color, of] : crosses) {
        EXPECT_EQ(of.size(), 1U) << color;
        colors += of.contains(true);
    }
    EXPECT_EQ(colors, 1);
}

TEST_F(InspectionBrowser, ALongSampleComesInParts) {
    SampleWriter writer(1);
    Inspection inspection{.title = "long"};
    inspection.samples = {writer.sample("book.jsonl:1", 45000, 1, 1)};
    const auto tokens = std::ssize(inspection.samples[0].sequences[0].ids);
    Json result = run_in_browser(folder_, inspection_page(inspection), R"js(
const count = () => document.querySelectorAll(".tokens>span").length;
result.at_once = count();
for (let k = 0; k < 20; ++k) await wait();
result.first = count();
for (let button; (button = document.querySelector(".tokens>button"));) {
  button.click();
  for (let k = 0; k < 20; ++k) await wait();
}
result.all = count();
)js");
    EXPECT_EQ(result["errors"], Json::array());
    EXPECT_LT(result["at_once"], 20000);
    EXPECT_EQ(result["first"], 20000);
    EXPECT_EQ(result["all"], tokens);
}

}  // namespace
}  // namespace colonnade
