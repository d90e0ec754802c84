// Rows with several answers and their scores: reading, which answers are kept, and what becomes of them.

#include "data/prepare_report.h"
#include "data/rows/kept_answers.h"
#include "data/store/build_store.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

class ScoredRows : public FileTest {
  protected:
    /// "answer score, answer score" of the first row; the rest of its fields behind.
    std::string kept(const std::string& json, const std::string& keep, Columns columns = {}) const {
        spill(path("rows.jsonl"), json);
        RowReader reader({.path = path("rows.jsonl"), .columns = std::move(columns), .keep = keep});
        EXPECT_EQ(reader.type(), "scored");
        Row row;
        EXPECT_TRUE(reader.next(row));
        std::string text;
        for (size_t i = 0; i < row.answers.size(); ++i) {
            const Row& answer = row.answers[i];
            text += fmt::format("{}{} {}", i > 0 ? ", " : "",
                                answer.completion ? *answer.completion : answer.messages.back().content, row.scores[i]);
        }
        return fmt::format("{}; {} left out", text, row.left_out);
    }
    StoreRequest request(const std::string& rows, const std::string& keep) const {
        spill(path("rows.jsonl"), rows);
        StoreRequest request;
        request.folder = path("prepared");
        request.datasets = {{.path = path("rows.jsonl"), .keep = keep}};
        request.tokenizer = Tokenizer::load(golden_file("template_golden.model"));
        request.encode.max_length = 24;
        request.progress.write = [](std::string_view) {};
        return request;
    }
};

std::string row(const std::string& scores, const std::string& more = "") {
    return fmt::format(R"({{"prompt": "p", "completions": ["a", "b", "c", "d"], "scores": [{}]{}}})"
                       "\n",
                       scores, more);
}

TEST_F(ScoredRows, KeepsTheBestOrThoseAbove) {
    const struct {
        const char *scores, *keep, *expected;
    } cases[] = {
        {"1, 3, 2, 3", "best", "b 3; 3 left out"},  // the first of equal ones
        {"-2, null, -1, -1", "best", "c -1; 3 left out"},
        {"null, null, null, null", "best", "; 4 left out"},
        {"1, 3, 2, 3", "above 1", "b 3, c 2, d 3; 1 left out"},
        {"1, 3, 2, 3", "above 2.5", "b 3, d 3; 2 left out"},
        {"1, 3, 2, 3", "above 3", "; 4 left out"},  // greater, not equal
        {"0, null, -1, 1e-3", "above 0", "d 0.001; 3 left out"},
        {"0, null, -1, -3", "above -2", "a 0, c -1; 2 left out"},
        {"1, 3, 2, 3", "", "a 1, b 3, c 2, d 3; 0 left out"},  // no choice: for readers of texts
    };
    for (const auto& [scores, keep, expected] : cases) EXPECT_EQ(kept(row(scores), keep), expected) << scores << keep;
    EXPECT_EQ(kept(R"({"prompt": "p", "completions": ["a", "b"], "rewards": [0, 1]})", "best"), "b 1; 1 left out");
    EXPECT_EQ(kept(R"({"prompt": [{"role": "user", "content": "q"}], "answers": ["a", "b"], "marks": [2, 1]})", "best",
                   {{"completions", "answers"}, {"scores", "marks"}}),
              "a 2; 1 left out");
}

TEST_F(ScoredRows, RefusesBadRowsAndKeys) {
    expect_error(Exit::data,
                 "rows.jsonl:1: key 'scores': 2 numbers for 4 answers in 'completions'; expected one for each",
                 [&] { kept(row("1, 2"), "best"); });
    expect_error(Exit::data,
                 "rows.jsonl:1: scores[1]: expected a number, or null for an answer without a score, found \"2\"",
                 [&] { kept(row(R"(1, "2", 3, 4)"), "best"); });
    expect_error(Exit::data, "scores[3]: expected a number, or null for an answer without a score, found NaN",
                 [&] { kept(row("1, 2, 3, NaN"), "best"); });
    for (const char* keep : {"worst", "above", "above x", "above 1 2", "above inf", "above: 1"})
        expect_error(Exit::config,
                     fmt::format("keep: expected best, or above and a number, as in above 0.5, found {}", keep),
                     [&] { kept(row("1, 2, 3, 4"), keep); });
    spill(path("rows.jsonl"), R"({"text": "t"})");
    expect_error(
        Exit::config,
        "rows.jsonl: keep: best needs rows of type scored {prompt, completions, scores}; these are of type text",
        [&] { RowReader({.path = path("rows.jsonl"), .keep = "best"}); });
    expect_error(Exit::config,
                 "rows.jsonl: rows of type scored have several answers; expected keep in the data set, which says what "
                 "is learned: best, or above and a number",
                 [&] { build_store(request(row("1, 2, 3, 4"), "")); });
    // A ranking whose scores say otherwise.
    spill(path("rows.jsonl"), row("4, 3, 5, null"));
    RowReader ranked({.path = path("rows.jsonl")}, RowKind::preferences);
    Row next;
    expect_error(
        Exit::data,
        "rows.jsonl:1: 'completions' is a ranking, the best answer first, but scores[1] is 3 and scores[2] is 5",
        [&] { ranked.next(next); });
    spill(path("rows.jsonl"), R"({"prompt": "p", "completions": ["a", "b"], "rewards": [0, 1]})");
    RowReader rewarded({.path = path("rows.jsonl")}, RowKind::preferences);
    expect_error(Exit::data, "but rewards[0] is 0 and rewards[1] is 1; sort the answers", [&] { rewarded.next(next); });
    spill(path("rows.jsonl"), row("4, 4, null, 9") + row("1, 2, 3, 4", R"(, "pairs": [[3, 0]])"));
    RowReader fine({.path = path("rows.jsonl")}, RowKind::preferences);
    EXPECT_TRUE(fine.next(next) && fine.next(next));
}

/// Each kept answer is the sample that a row of its own would be.
TEST_F(ScoredRows, KeptAnswersAreSamplesAndOthersAreCounted) {
    const std::string rows =
        row("0, 1, 1, 0") + row("0, 0, null, 0") + row("0, 1, 0, 0", R"(, "weight": 2)") +
        R"({"prompt": "p", "completions": ["e", "f f f f f f f f f f f f f f f f f f f f f f f f f f f"], "scores": [1, 1]})"
        "\n";
    const StoreResult result = build_store(request(rows, "above 0.5"));
    const TokenStore& store = result.store;
    const std::string plain = R"({"prompt": "p", "completion": "b"})"
                              "\n"
                              R"({"prompt": "p", "completion": "c"})"
                              "\n"
                              R"({"prompt": "p", "completion": "b", "weight": 2})"
                              "\n"
                              R"({"prompt": "p", "completion": "e"})"
                              "\n";
    const TokenStore expected = build_store(request(plain, "")).store;
    ASSERT_EQ(store.size(), expected.size());
    for (int64_t i = 0; i < store.size(); ++i) EXPECT_EQ(store.sample(i), expected.sample(i)) << i;
    const StoreStatistics& s = store.statistics;
    EXPECT_EQ(s.rows, 4);
    EXPECT_EQ(s.scored_rows, 4);
    EXPECT_EQ(s.scored_answers, 14);
    EXPECT_EQ(s.kept_answers, 5);
    EXPECT_EQ(s.notes[RowNote::dropped_no_answer_kept].first, std::vector<std::string>{path("rows.jsonl") + ":2"});
    EXPECT_EQ(s.notes[RowNote::answers_left_out].first, std::vector<std::string>{path("rows.jsonl") + ":4"});
    EXPECT_EQ(s.notes[RowNote::dropped_too_long].count, 0);
    const std::string report = prepare_report(result, {.packing_length = 32}, nullptr);
    for (const char* part : {"kept by score             5 of 14 answers, of 3 of 4 rows\n",
                             "dropped, no answer kept   1 (", "answers left out          1 ("})
        EXPECT_NE(report.find(part), std::string::npos) << report << "\nlacks " << part;
    const StoreResult again = build_store(request(rows, "above 0.5"));
    EXPECT_TRUE(again.reused);
    EXPECT_EQ(again.store.statistics.scored_answers, 14);
    EXPECT_NE(build_store(request(rows, "best")).key, result.key);
}

}  // namespace
}  // namespace colonnade
