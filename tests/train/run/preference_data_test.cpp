// Preferences from a file to a store, a report and a session: every row is kept or counted, and rows that the model
// cannot use are reported before the first step.

#include "data/packing/batch.h"
#include "data/prepare_report.h"
#include "tests/support/flat_sample.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_run.h"
#include "train/run/session.h"

namespace colonnade {
namespace {

class PreferenceData : public FileTest {
  protected:
    StoreRequest request(std::string_view rows) const {
        spill(path("rows.jsonl"), rows);
        StoreRequest request;
        request.folder = path("prepared");
        request.datasets = {{.path = path("rows.jsonl")}};
        request.rows = RowKind::preferences;
        request.encode = {.max_length = 6, .vocab_size = 100, .sample_length = 8};
        request.progress.write = [](std::string_view) {};
        return request;
    }
    std::string place(int line) const { return fmt::format("{}:{}", path("rows.jsonl"), line); }
    Session session(const std::string& rows, const std::string& keys) const {
        spill(path("rows.jsonl"), rows);
        const std::string yaml =
            fmt::format("datasets: [{{path: {}}}]\noutput_dir: {}\n{}device: cpu\n{}\n", path("rows.jsonl"),
                        path("run"), keys.find("max_length") == keys.npos ? "max_length: 32\n" : "", keys);
        std::optional<Session> opened;
        quietly([&] { opened.emplace(open_session(parse_config(yaml, "c.yaml"))); });
        return std::move(*opened);
    }
};

std::string pair_row(const std::string& prompt, const std::string& chosen, const std::string& rejected,
                     const std::string& more = "") {
    return fmt::format(R"({{"prompt_input_ids": [{}], "chosen_input_ids": [{}], "rejected_input_ids": [{}]{}}})"
                       "\n",
                       prompt, chosen, rejected, more);
}

TEST_F(PreferenceData, EveryRowIsKeptOrCounted) {
    const std::string rows = pair_row("1, 2", "3, 4, 5", "6", R"(, "margin": 1.5)") +  // 1
                             pair_row("1, 2", "3, 4", "3, 5, 7") +                     // 2: both answers begin with 3
                             pair_row("1, 2", "3, 4", "3, 4") +                        // 3: the same
                             pair_row("1, 2, 3, 4, 5", "6, 7", "8") +                  // 4: 7 > 6 tokens
                             pair_row("1, 2", "3, 4, 5, 6", "7, 8, 9");                // 5: 2 + 4 + 3 > 8
    const StoreResult result = build_store(request(rows));
    const TokenStore& store = result.store;
    ASSERT_EQ(store.size(), 2);
    EXPECT_EQ(flat(store.sample(0)).tokens, (std::vector<int32_t>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(flat(store.sample(0)).weights, (std::vector<float>{0, 0, 1, 1, 1, 1}));
    EXPECT_EQ(flat(store.sample(0)).begins, (std::vector<int32_t>{2, 5}));
    EXPECT_EQ(flat(store.sample(0)).margin, 1.5f);
    EXPECT_EQ(flat(store.sample(1)).tokens, (std::vector<int32_t>{1, 2, 3, 4, 3, 5, 7}));
    EXPECT_EQ(flat(store.sample(1)).begins, (std::vector<int32_t>{2, 4}));
    const StoreStatistics& s = store.statistics;
    EXPECT_EQ(s.rows, 5);
    EXPECT_EQ(s.notes[RowNote::dropped_same_answers].first, std::vector<std::string>{place(3)});
    EXPECT_EQ(s.notes[RowNote::dropped_too_long].first, std::vector<std::string>{place(4)});
    EXPECT_EQ(s.notes[RowNote::dropped_no_room].first, std::vector<std::string>{place(5)});
    EXPECT_EQ(s.rows, s.samples + s.notes[RowNote::dropped_same_answers].count +
                          s.notes[RowNote::dropped_too_long].count + s.notes[RowNote::dropped_no_room].count);
    EXPECT_EQ(s.longest_row, 7);
    EXPECT_EQ(s.learned_tokens, 4 + 5);
    EXPECT_EQ(s.pairs, 2);
    EXPECT_EQ(s.pair_tokens, 13);
    EXPECT_EQ(s.repeated_tokens, 17);

    const std::string report = prepare_report(result, {.packing_length = 8}, nullptr);
    for (const std::string part : {"tokens of a pair          6.5; 8.5 with the prompt repeated, 30.8% more",
                                   "trained per answer        chosen 2.5 tokens, rejected 2.0",
                                   "    prompt    1 2\n    chosen    [3 4 5]\n    rejected  [6]\n"})
        EXPECT_NE(report.find(part), std::string::npos) << report << "\nlacks " << part;
    EXPECT_NE(report.find("dropped, same answers     1 (" + place(3) + ")"), std::string::npos) << report;
    EXPECT_NE(report.find("dropped, no room          1 (" + place(5) + ")"), std::string::npos) << report;
    EXPECT_EQ(build_store(request(rows)).reused, true);
}

TEST_F(PreferenceData, TruncatedAnswersAreCounted) {
    StoreRequest truncating = request(pair_row("1, 2", "3, 4, 5, 6", "7, 8, 9") +        // 1: to 3 tokens each
                                      pair_row("1, 2, 3", "4, 5, 6, 7", "4, 5, 6, 8") +  // 2: the difference is cut
                                      pair_row("1, 2, 3, 4, 5, 6", "7", "8") +           // 3: the prompt takes all
                                      pair_row("1", "2", "3"));
    truncating.encode.excess_length = ExcessLength::truncate;
    const TokenStore store = build_store(truncating).store;
    ASSERT_EQ(store.size(), 2);
    EXPECT_EQ(flat(store.sample(0)).tokens, (std::vector<int32_t>{1, 2, 3, 4, 5, 7, 8, 9}));
    EXPECT_EQ(store.statistics.notes[RowNote::truncated].first, std::vector<std::string>{place(1)});
    EXPECT_EQ(store.statistics.notes[RowNote::dropped_difference_cut].first, std::vector<std::string>{place(2)});
    EXPECT_EQ(store.statistics.notes[RowNote::dropped_no_room].first, std::vector<std::string>{place(3)});

    StoreRequest nothing = request(pair_row("1", "2, 3", "2, 3"));
    expect_error(Exit::data,
                 "no sample is left for train: 1 row read (the longest has 3 tokens), all dropped: 1 same answers",
                 [&] { build_store(nothing); });
}

TEST_F(PreferenceData, TextsAndPreferencesOfAFileHaveDifferentKeys) {
    const std::string both = R"({"messages": [{"role": "user", "content": "q"}], "input_ids": [1, 2, 3],)"
                             R"( "chosen_input_ids": [1, 2], "rejected_input_ids": [1, 3, 4]})";
    StoreRequest preferences = request(both), texts = request(both);
    texts.rows = RowKind::texts;
    const StoreResult a = build_store(preferences), b = build_store(texts);
    EXPECT_NE(a.key, b.key);
    EXPECT_EQ(flat(a.store.sample(0)).begins, (std::vector<int32_t>{1, 2}));
    EXPECT_EQ(flat(b.store.sample(0)).begins, (std::vector<int32_t>{0}));
}

TEST_F(PreferenceData, TheReportOfRankings) {
    spill(path("rows.jsonl"), "");
    TokenStore store;
    store.statistics.files = {{.path = "r.jsonl", .type = "ranked", .rows = 1}};
    store.add(sample_of({{1, 2, 3, 4, 5, 6}, {0, 1, 1, 1, 1, 1}, {1, 3, 4}}), 0, 1);
    store.count_samples();
    const std::string report = prepare_report({.store = store, .path = "", .key = ""}, {.packing_length = 8}, nullptr);
    for (const char* part : {"rankings                  1 with 3.0 answers each",
                             "tokens of a ranking       6.0; 8.0 with the prompt repeated, 33.3% more",
                             "trained per answer        best 2.0 tokens, worst 2.0",
                             "    prompt    1\n    answer 1  [2 3]\n    answer 2  [4]\n    answer 3  [5 6]\n"})
        EXPECT_NE(report.find(part), std::string::npos) << report << "\nlacks " << part;
}

const std::string shape =
    "model: {architecture: mistral, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, "
    "num_attention_heads: 1, vocab_size: 100, sliding_window: ";

TEST_F(PreferenceData, ASessionOpensThem) {
    std::string rows;
    for (int i = 0; i < 20; ++i) rows += pair_row("1, 2", fmt::format("3, {}", 10 + i), "7, 8, 9");
    const Session s = session(rows, shape + "0}\nstage: dpo\nval_size: 5\n");
    EXPECT_EQ(s.config.packing_length, 64);
    EXPECT_EQ(s.train.store.size(), 15);
    EXPECT_EQ(s.eval.store.statistics.pairs, 5);
    EXPECT_NE(session(rows, shape + "0}\nstage: rm\nval_size: 5\n").train.key, "");
}

TEST_F(PreferenceData, PairsFitTheLossOfTheStage) {
    const std::string rows = pair_row("1", "2", "3") + pair_row("1", "2", "4", R"(, "margin": 2, "weight": 3)");
    const Session s = session(rows, shape + "0}\nstage: dpo\n");
    EXPECT_EQ(s.train.store.pairs(), (std::vector<PairTotals>{{1, 1}, {1, 3}}));
    const auto told = [](const Session& of) {
        return std::ranges::count(of.notices,
                                  "1 pairs of train have a margin, which no loss of stage dpo reads: stage rm does");
    };
    EXPECT_EQ(told(s), 1);
    EXPECT_EQ(told(session(rows, shape + "0}\nstage: rm\n")), 0);
    expect_error(Exit::data, place(2) + ": a sample has a margin of 2, which only reward_loss: pairwise supports",
                 [&] { session(rows, shape + "0}\nstage: rm\nreward_loss: plackett_luce\n"); });
}

/// Rankings and conversations stay whole, wherever a window of the model ends within them.
TEST_F(PreferenceData, TreesBeyondASlidingWindowStayWhole) {
    std::string wide = shape;
    wide.replace(wide.find("vocab_size: 100"), 15, "vocab_size: 500");
    const std::string text = R"({"prompt": "a b c", "completions": ["d e f g h", "i j k l m", "n"]})";
    const std::string keys = fmt::format("tokenizer_name_or_path: {}\n", golden_file("template_golden.model"));
    for (const int window : {64, 4, 1}) {
        const Session s = session(text, fmt::format("{}{}}}\nstage: rm\n{}", wide, window, keys));
        EXPECT_EQ(s.train.store.sample(0).sequences.size(), 3u) << "window " << window;
    }
    const std::string words = "d e f g h i j k l m n o p q r s t u v w x y z ";
    const auto answer = [&](const std::string& chosen, const std::string& rejected) {
        return fmt::format(R"({{"role": "assistant", "content": "{}", "rejected": "{}"}})", chosen, rejected);
    };
    const std::string row = fmt::format(
        R"({{"messages": [{{"role": "user", "content": "a"}}, {}, {{"role": "user", "content": "d"}}, {}]}})",
        answer("c", words + words), answer(words + "a", words + "b"));
    // The first window that two ranges per column cannot say: it ends within three answers.
    const auto opened = [&](int64_t window) {
        return session(row, fmt::format("{}{}}}\nmax_length: 256\nstage: dpo\n{}", wide, window, keys));
    };
    const Sample sample = opened(0).train.store.sample(0);
    const Batch batch = make_batch({{&sample}});
    int64_t window = 1;
    while (window < 200 && batch.mask.with_sliding_window(window, batch.positions).position_window == 0) ++window;
    ASSERT_LT(window, 200);
    const Session s = opened(window);
    ASSERT_EQ(s.train.store.size(), 1);
    EXPECT_EQ(s.train.store.sample(0), sample);
    EXPECT_EQ(s.train.store.pairs(), (std::vector<PairTotals>{{2, 2}}));
    const std::string report = prepare_report(s.train, {.packing_length = 512}, nullptr);
    for (const char* part : {"pairs                     2, turns of 1 conversations", "tokens of a conversation  ",
                             "    rejected  ", "    chosen    "})
        EXPECT_NE(report.find(part), std::string::npos) << report << "\nlacks " << part;
}

TEST_F(PreferenceData, ThePrograms) {
    spill(path("rows.jsonl"), pair_row("1, 2", "3, 4", "5"));
    spill(path("c.yaml"), fmt::format("datasets: [{{path: {}}}]\noutput_dir: {}\ndevice: cpu\nstage: dpo\n{}0}}\n",
                                      path("rows.jsonl"), path("run"), shape));
    Program prepare("prepare", {path("c.yaml")});
    const Program::Result prepared = prepare.wait();
    EXPECT_EQ(prepared.exit, 0) << prepared.err;
    EXPECT_NE(prepared.out.find("pairs                     1\n"), std::string::npos) << prepared.out;
    Program train("train", {path("c.yaml")});
    const Program::Result trained = train.wait();
    EXPECT_EQ(trained.exit, 0) << trained.err;
}

}  // namespace
}  // namespace colonnade
