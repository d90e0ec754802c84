#include "train/inspect/inspection_page.h"

#include <gtest/gtest.h>

#include "tests/support/draw.h"
#include "tests/support/inspected_pack.h"
#include "tests/support/markup.h"
#include "train/inspect/inspection_json.h"

namespace colonnade {
namespace {

const std::string hostile = "</script><script>alert('1')</script> & \"x\" <b>\xFF</b>";

/// Something in every part. Its texts are hostile.
Inspection hostile_inspection() {
    Inspection made = inspected_pack(600, 4, 64);
    made.title = hostile;
    made.facts = {{hostile, hostile}};
    made.masks[0].name = hostile;
    InspectedSample& sample = made.samples[1];
    sample.place = hostile;
    sample.notes = {hostile};
    for (InspectedSequence& sequence : sample.sequences) sequence.name = hostile;
    sample.sequences[0].texts[3] = made.row.texts[static_cast<size_t>(sample.sequences[0].rows[3])] = hostile;
    made.notes.push_back({hostile, hostile, hostile, 3, {hostile, hostile + "2"}});
    made.length_table = made.fill_table = {{hostile, hostile}, {hostile, hostile}};
    return made;
}

TEST(InspectionPage, EscapesWhateverItShows) {
    const std::string page = inspection_page(hostile_inspection());
    EXPECT_EQ(markup_trouble(page), "");
    EXPECT_EQ(occurrences(page, "<script>alert"), 0);
    EXPECT_EQ(occurrences(page, "&lt;script&gt;alert"), occurrences(page, "alert(&#39;1&#39;)"));
    EXPECT_GT(occurrences(page, "alert(&#39;1&#39;)"), 15);
    EXPECT_EQ(occurrences(page, "</script>"), 2);  // the data, the page's own
    EXPECT_EQ(occurrences(page, "\xFF"), 0);
}

TEST(InspectionPage, LoadsNothing) {
    const std::string page = inspection_page(hostile_inspection());
    for (const char* part : {"src=", "@import", "url(", "fetch(", "XMLHttp", "import(", "eval(", "Function(", "https:"})
        EXPECT_EQ(occurrences(page, part), 0) << part;
    EXPECT_EQ(occurrences(page, "href="), occurrences(page, "href=\"#"));
    EXPECT_EQ(occurrences(page, "default-src 'none'"), 1);
}

TEST(InspectionPage, PutsSuspiciousRowsFirstAndLinksTheirSamples) {
    const Inspection inspection = inspected_pack(3000, 6);
    const std::string page = inspection_page(inspection);
    const auto at = [&](const std::string& text) { return page.find(text); };
    EXPECT_LT(at("Suspicious rows"), at(">nothing learned<"));
    EXPECT_LT(at(">very short<"), at(">longer than packing_length<"));
    EXPECT_LT(at(">longer than packing_length<"), at("id=\"picture\""));
    EXPECT_EQ(occurrences(page, "<a href=\"#sample=4\">chats.jsonl:10</a>"), 1);
    EXPECT_EQ(occurrences(page, "<a href=\"#sample=7\">chats.jsonl:1000</a>"), 1);
    Inspection without = inspection;
    for (InspectedNote& note : without.notes) note.effect = "changed";
    EXPECT_EQ(inspection_page(without).find("Suspicious rows"), std::string::npos);
}

TEST(InspectionPage, LeavesOutWhatThereIsNotAnythingOf) {
    const std::string nothing = inspection_page({.title = "empty"});
    EXPECT_EQ(markup_trouble(nothing), "");
    for (const char* part : {"id=\"picture\"", "id=\"samples\"", "id=\"notes\"", "<table", "<svg", "<h2"})
        EXPECT_EQ(occurrences(nothing, part), 0) << part;

    Inspection mask_alone{.title = "causal_document"};
    mask_alone.masks = {inspected_mask("", causal_document_mask(12, {5, 12}), 4)};
    const std::string mask = inspection_page(mask_alone);
    EXPECT_EQ(markup_trouble(mask), "");
    EXPECT_EQ(occurrences(mask, "id=\"picture\""), 1);
    EXPECT_EQ(occurrences(mask, "id=\"samples\""), 0);
    EXPECT_EQ(occurrences(mask, "mask 1: 29.9 % of all pairs visible"), 1);  // (15 + 28) / 144

    Inspection samples_alone = inspected_pack(600, 4, 64);
    samples_alone.masks.clear();
    const std::string samples = inspection_page(samples_alone);
    EXPECT_EQ(markup_trouble(samples), "");
    EXPECT_EQ(occurrences(samples, "id=\"picture\""), 0);
    EXPECT_EQ(occurrences(samples, "id=\"samples\""), 1);
}

TEST(InspectionPage, IsSmallForARowOf32KTokens) {
    const Inspection inspection = inspected_pack(32768, 60);
    size_t letters = 0;
    for (const std::string& text : inspection.row.texts) letters += text.size();
    ASSERT_GT(letters, 3 * size_t{32768});
    EXPECT_LT(inspection_page(inspection).size(), size_t{2'000'000});
}

/// The numbers of a list of inspection_json().
template <class T>
std::vector<T> unpacked(const Json& list) {
    if (list.is_array()) return list.get<std::vector<T>>();
    std::vector<T> values;
    const Json& runs = list.at("runs");
    for (size_t r = 0; r < runs.size(); r += 3)
        for (int64_t k = 0; k < runs[r + 1].get<int64_t>(); ++k)
            values.push_back(
                static_cast<T>(runs[r].get<double>() + static_cast<double>(k) * runs[r + 2].get<double>()));
    return values;
}

TEST(InspectionJson, ListsComeBackWhole) {
    Inspection inspection = inspected_pack(2000, 5);
    Draw draw(3);
    for (double& weight : inspection.row.weights)
        if (draw.below(4) == 0) weight = draw.below(3) * 0.25;
    for (int32_t& user : inspection.row.users) user = draw.below(2);
    const Json json = inspection_json(inspection), &row = json.at("row"), &tokens = json.at("tokens");
    EXPECT_EQ(unpacked<int32_t>(row.at("positions")), inspection.row.positions);
    EXPECT_EQ(unpacked<double>(row.at("weights")), inspection.row.weights);
    EXPECT_EQ(unpacked<int32_t>(row.at("samples")), inspection.row.samples);
    EXPECT_EQ(unpacked<int32_t>(row.at("sequences")), inspection.row.sequences);
    EXPECT_EQ(unpacked<int32_t>(row.at("users")), inspection.row.users);
    const auto ids = unpacked<int32_t>(tokens.at("ids")), of_row = unpacked<int32_t>(row.at("tokens"));
    ASSERT_EQ(of_row.size(), inspection.row.ids.size());
    for (size_t i = 0; i < of_row.size(); ++i) {
        const auto entry = static_cast<size_t>(of_row[i]);
        EXPECT_EQ(ids[entry], inspection.row.ids[i]);
        EXPECT_EQ(tokens.at("texts")[entry], inspection.row.texts[i]);
    }
    for (size_t m = 0; m < inspection.masks.size(); ++m) {
        const Json& mask = json.at("masks")[m];
        const auto lts = unpacked<int32_t>(mask.at("lts")), lte = unpacked<int32_t>(mask.at("lte"));
        const auto uts = unpacked<int32_t>(mask.at("uts")), ute = unpacked<int32_t>(mask.at("ute"));
        for (int64_t j = 0; j < inspection.masks[m].mask.columns; ++j) {
            const ColumnMask::Bounds x = inspection.masks[m].mask.bounds(0, 0, j);
            const auto at = static_cast<size_t>(j);
            EXPECT_EQ(std::vector({lts[at], lte[at], uts[at], ute[at]}), std::vector({x.lts, x.lte, x.uts, x.ute}));
        }
        EXPECT_EQ(unpacked<int32_t>(mask.at("positions")), inspection.masks[m].mask.row_positions);
    }
}

TEST(InspectionJson, TokensOfTheRowAreThereOnce) {
    Inspection inspection = inspected_pack(2000, 5);
    const auto with_tokens = [&] {
        std::string numbers;
        const Json json = inspection_json(inspection);
        for (size_t s = 0; s < json.at("samples").size(); ++s)
            for (const Json& sequence : json.at("samples")[s].at("sequences"))
                if (sequence.contains("tokens")) numbers += fmt::format("{} ", s);
        return numbers;
    };
    EXPECT_EQ(with_tokens(), "5 6 7 ");  // those that are not in the row
    inspection.samples[2].sequences[0].texts[1] += "!";
    EXPECT_EQ(with_tokens(), "2 5 6 7 ");
}

}  // namespace
}  // namespace colonnade
