// The token store: samples are read back as written, a stale or damaged file is never used, and every dropped row is
// counted. Rows are pre-tokenised, so that the tests can spell out every token.

#include "data/store/store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "data/prepare_report.h"
#include "data/store/build_store.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"
#include "tests/support/expect_error.h"
#include "tests/support/flat_sample.h"
#include "tests/support/paths.h"
#include "tests/support/random_trees.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class Store : public testing::Test {
  protected:
    void SetUp() override {
        folder_ = testing::TempDir() + "store_" + testing::UnitTest::GetInstance()->current_test_info()->name();
        fs::remove_all(folder_);
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }

    std::string write(const std::string& name, const std::string& content) const {
        const std::string path = folder_ + "/" + name;
        std::ofstream(path, std::ios::binary) << content;
        return path;
    }

    StoreRequest request(std::vector<std::string> paths) const {
        StoreRequest request;
        request.folder = folder_ + "/prepared";
        for (const auto& path : paths) request.datasets.push_back({.path = path});
        request.encode.vocab_size = 100;
        request.encode.max_length = 8;
        request.progress.write = [](std::string_view) {};
        return request;
    }

    std::string folder_;
};

const char* const rows = R"({"input_ids": [1, 10, 11, 12], "labels": [-100, -100, 11, 12]})"
                         "\n\n"
                         R"({"input_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9]})"
                         "\n"
                         R"({"input_ids": [1, 20, 21], "labels": [-100, -100, -100]})"
                         "\n"
                         R"({"input_ids": [1]})"
                         "\n"
                         R"({"input_ids": [30, 31]})"
                         "\n";

void expect_equal(const TokenStore& a, const TokenStore& b) {
    ASSERT_EQ(a.size(), b.size());
    for (int64_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a.sample(i), b.sample(i));
        EXPECT_EQ(a.place(i), b.place(i));
    }
    EXPECT_EQ(to_json_text(a.statistics), to_json_text(b.statistics));
    EXPECT_EQ(a.settings, b.settings);
}

void expect_refusal(Exit exit, const std::vector<std::string>& parts, const std::function<void()>& body) {
    const std::string message = expect_error(exit, parts.front(), body);
    for (const auto& part : parts) EXPECT_NE(message.find(part), std::string::npos) << message << "\n  lacks: " << part;
}

TEST_F(Store, ReadsEveryFileOfAFolder) {
    fs::create_directories(folder_ + "/data");
    const std::string one = write("data/one.jsonl", R"({"input_ids": [1, 2]})");
    const std::string two = write("data/two.json", R"([{"input_ids": [3, 4]}, {"input_ids": [5, 6, 7]}])");
    const std::string other = write("other.jsonl", R"({"input_ids": [8, 9]})");
    write("data/notes.txt", "");
    StoreRequest folder = request({folder_ + "/data", other});
    const StoreResult result = build_store(folder);
    const TokenStore& store = result.store;
    ASSERT_EQ(store.size(), 4);
    EXPECT_EQ(store.place(0), one + ":1");
    EXPECT_EQ(store.place(2), two + ": row 2");
    EXPECT_EQ(store.place(3), other + ":1");
    EXPECT_EQ(store.dataset(2), 0);
    EXPECT_EQ(store.dataset(3), 1);
    const StoreStatistics& s = store.statistics;
    ASSERT_EQ(s.files.size(), 3u);
    EXPECT_EQ(s.files[0].rows, 1);
    EXPECT_EQ(s.files[1].rows, 2);
    EXPECT_EQ(s.files[1].samples, 2);
    EXPECT_EQ(s.files[2].rows, 1);
    EXPECT_EQ(s.left_out, (std::vector<std::string>{folder_ + "/data/notes.txt"}));
    // The file holds all of it; the same files give it again.
    const StoreResult again = build_store(folder);
    EXPECT_TRUE(again.reused);
    expect_equal(again.store, store);
    // A weight applies to the finished store; anything else that changes rows gives another one.
    folder.datasets[0].weight = 2;
    EXPECT_EQ(build_store(folder).key, result.key);
    folder.datasets[0].max_samples = 2;
    const StoreResult fewer = build_store(folder);
    EXPECT_NE(fewer.key, result.key);
    EXPECT_EQ(fewer.store.size(), 3);
    folder.datasets[0].max_samples = 0;
    write("data/three.jsonl", R"({"input_ids": [1, 2]})");
    EXPECT_NE(build_store(folder).key, result.key);
    EXPECT_EQ(store.select({2, 0, 2}).place(2), two + ": row 2");
}

TEST_F(Store, EveryRowIsKeptOrCounted) {
    const std::string path = write("a.jsonl", rows);
    const StoreResult result = build_store(request({path}));
    EXPECT_FALSE(result.reused);
    const TokenStore& store = result.store;
    ASSERT_EQ(store.size(), 2);
    EXPECT_EQ(flat(store.sample(0)).tokens, (std::vector<int32_t>{1, 10, 11, 12}));
    EXPECT_EQ(flat(store.sample(0)).weights, (std::vector<float>{0, 0, 1, 1}));
    EXPECT_EQ(flat(store.sample(0)).begins, (std::vector<int32_t>{0}));
    EXPECT_EQ(flat(store.sample(1)).tokens, (std::vector<int32_t>{30, 31}));
    EXPECT_EQ(store.place(0), path + ":1");
    EXPECT_EQ(store.place(1), path + ":6");
    EXPECT_EQ(store.lengths(), (std::vector<int64_t>{4, 2}));
    EXPECT_EQ(store.target_weights(), (std::vector<double>{2, 1}));

    const StoreStatistics& s = store.statistics;
    EXPECT_EQ(s.rows, 5);
    EXPECT_EQ(s.samples, 2);
    EXPECT_EQ(s.tokens, 6);
    EXPECT_EQ(s.learned_tokens, 3);
    EXPECT_EQ(s.longest_row, 9);
    EXPECT_EQ(s.notes[RowNote::dropped_too_long].first, (std::vector<std::string>{path + ":3"}));
    EXPECT_EQ(s.notes[RowNote::dropped_nothing_learned].first, (std::vector<std::string>{path + ":4", path + ":5"}));
    EXPECT_EQ(s.rows,
              s.samples + s.notes[RowNote::dropped_too_long].count + s.notes[RowNote::dropped_nothing_learned].count);
    EXPECT_EQ(s.files.at(0).type, "tokens");
    EXPECT_EQ(s.files.at(0).rows, 5);
    EXPECT_EQ(s.files.at(0).samples, 2);
}

TEST_F(Store, ColumnsThatAreNotUsedAreCounted) {
    const std::string path = write("a.jsonl", R"({"input_ids": [1, 2, 3], "text": "a", "id": 4})"
                                              "\n"
                                              R"({"input_ids": [1, 2, 4], "text": "b", "note": "n"})"
                                              "\n"
                                              R"({"input_ids": [1, 2, 5], "text": null})"
                                              "\n");
    const std::map<std::string, int64_t> expected = {{"note", 1}, {"text", 2}};
    for (const char* way : {"built", "read again"})
        EXPECT_EQ(build_store(request({path})).store.statistics.unused_columns.rows(), expected) << way;
    UnusedColumns many;
    for (int i = 0; i < 1000; ++i) many.add({fmt::format("k{}", i)});
    EXPECT_EQ(many.rows().size(), UnusedColumns::names_kept + 1);
    EXPECT_EQ(many.rows().at("(others)"), 900);
}

TEST_F(Store, LongRowsAreTruncatedOrRefusedOnRequest) {
    const std::string path = write("a.jsonl", rows);
    StoreRequest truncating = request({path});
    truncating.encode.excess_length = ExcessLength::truncate;
    const StoreResult result = build_store(truncating);
    EXPECT_EQ(flat(result.store.sample(1)).tokens, (std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8}));
    EXPECT_EQ(result.store.statistics.notes[RowNote::truncated].first, (std::vector<std::string>{path + ":3"}));

    StoreRequest strict = request({path});
    strict.encode.excess_length = ExcessLength::error;
    expect_refusal(Exit::data, {path + ":3", "9 tokens"}, [&] { build_store(strict); });
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_ + "/prepared"), {}), 1);  // the file of the first request
}

TEST_F(Store, AnUnchangedRequestFindsItsStore) {
    const std::string path = write("a.jsonl", rows);
    const StoreResult fresh = build_store(request({path}));
    const StoreResult found = build_store(request({path}));
    EXPECT_TRUE(found.reused);
    EXPECT_EQ(found.path, fresh.path);
    EXPECT_EQ(fs::path(found.path).filename(), "train-" + found.key.substr(0, 16) + ".h5");
    expect_equal(found.store, fresh.store);
}

TEST_F(Store, WhateverCouldChangeATokenChangesTheKey) {
    const std::string path = write("a.jsonl", rows), other = write("b.jsonl", rows);
    const std::vector<std::function<void(StoreRequest&)>> changes = {
        [](auto&) {},
        [&](auto& r) {
            r.datasets.push_back({other, "auto", {}});
        },
        [](auto& r) { r.datasets[0].type = "tokens"; },
        [](auto& r) {
            r.datasets[0].columns = {{"completion_mask", "learned"}};
        },
        [](auto& r) { r.datasets[0].ignore_columns = {"note"}; },
        [](auto& r) { r.encode.chat_template = ChatTemplate::built_in("plain"); },
        [](auto& r) {
            r.encode.chat_template = ChatTemplate::built_in("plain", {.variables = {{"a", 1}}});
        },
        [](auto& r) { r.encode.chat_template = ChatTemplate::built_in("plain", {.clock = {.year = 2024}}); },
        [](auto& r) { r.chat_templates = {ChatTemplate::built_in("zephyr")}; },
        [](auto& r) { r.encode.end_ids = {7}; },
        [](auto& r) { r.encode.allow_spelled_out_markers = true; },
        [](auto& r) { r.encode.special_tokens_in_text = Spelled::token; },
        [](auto& r) { r.encode.train_on_thinking = false; },
        [](auto& r) { r.encode.train_on_tool_calls = false; },
        [](auto& r) { r.encode.max_length = 9; },
        [](auto& r) { r.encode.train_on_prompt = true; },
        [](auto& r) { r.encode.roles_to_train = {"user"}; },
        [](auto& r) { r.encode.train_on_eos = TrainOnEos::all; },
        [](auto& r) { r.encode.mask_history = true; },
        [](auto& r) { r.encode.history = History::as_rendered; },
        [](auto& r) { r.encode.add_bos = false; },
        [](auto& r) { r.encode.add_eos = false; },
        [](auto& r) { r.encode.excess_length = ExcessLength::truncate; },
        [](auto& r) { r.encode.vocab_size = 101; },
        [](auto& r) { r.encode.sample_length = 8; },
        [](auto& r) { r.encode.ranked_pairs = RankedPairs::best; },
        [](auto& r) { r.encode.mask_truncated = true; },
        [](auto& r) { r.rewards.weights = {2}; },
        [](auto& r) { r.rewards.advantages.scale = AdvantageScale::none; },
        [](auto& r) { r.rewards.advantages.clip_max = 1; },
        [&](auto&) { write("a.jsonl", std::string(rows) + "{\"input_ids\": [40, 41]}\n"); },
    };
    std::set<std::string> keys;
    for (const auto& change : changes) {
        StoreRequest changed = request({path});
        change(changed);
        const StoreResult result = build_store(changed);
        EXPECT_FALSE(result.reused);
        keys.insert(result.key);
    }
    EXPECT_EQ(keys.size(), changes.size());
}

TEST_F(Store, EachDataSetHasItsTemplate) {
    const std::string chat =
        write("a.jsonl", R"({"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]})"
                         "\n");
    StoreRequest r = request({chat, chat});
    r.encode.max_length = 64;
    r.tokenizer = Tokenizer::load(golden_file("template_golden.model"));
    r.encode.vocab_size = r.tokenizer->vocab_size();
    r.chat_templates = {nullptr, ChatTemplate::built_in("zephyr")};
    const StoreResult result = build_store(r);
    ASSERT_EQ(result.store.size(), 2);
    const auto text = [&](int64_t i) { return sample_text(result.store.sample(i), *r.tokenizer); };
    EXPECT_EQ(text(0), "<|im_start|>user\\na b<|im_end|>\\n<|im_start|>assistant\\n[c<|im_end|>]\\n");
    EXPECT_EQ(text(1), "<|user|>\\na b</s>\\n<|assistant|>\\n[c</s>]\\n");
}

/// The marks of what is learned are told from the text.
TEST_F(Store, BracketsOfTheTextAreEscaped) {
    StoreRequest r = request({write(
        "a.jsonl", R"({"messages": [{"role": "user", "content": "[a] \\"}, {"role": "assistant", "content": "b [c]"}]})"
                   "\n")});
    r.encode.max_length = 64;
    r.tokenizer = Tokenizer::load(golden_file("template_golden.model"));
    r.encode.vocab_size = r.tokenizer->vocab_size();
    r.chat_templates = {ChatTemplate::built_in("zephyr")};
    const StoreResult result = build_store(r);
    ASSERT_EQ(result.store.size(), 1);
    const Sample sample = result.store.sample(0);
    EXPECT_EQ(sample_text(sample, *r.tokenizer), R"(<|user|>\n\[a\] \\</s>\n<|assistant|>\n[b \[c\]</s>]\n)");
    EXPECT_EQ(sample_text(sample, *r.tokenizer, LearnedMark::underline),
              "<|user|>\\n[a] \\</s>\\n<|assistant|>\\n\x1b[4mb\x1b[0m \x1b[4m[c]</s>\x1b[0m\\n");
    EXPECT_NE(render_sample(sample, r.tokenizer.get()).find("\\["), std::string::npos);
    EXPECT_EQ(render_sample(sample_of({{1, 2, 3, 4}, {0, 1, 1, 0}}), nullptr, LearnedMark::underline),
              "1 \x1b[4m2\x1b[0m \x1b[4m3\x1b[0m 4");
}

TEST_F(Store, TheFileIsTheSameForAnyNumberOfThreads) {
    std::string many;
    for (int i = 0; i < 20000; ++i) {
        many += fmt::format("{{\"input_ids\": [1, {}, {}, {}]}}\n", i % 97, i % 89, i % 83);
    }
    const std::string a = write("a.jsonl", many), b = write("b.jsonl", rows);
    std::set<std::string> hashes;
    for (const int threads : {1, 2, 5}) {
        StoreRequest threaded = request({a, b, a});
        threaded.threads = threads;
        const StoreResult result = build_store(threaded);
        EXPECT_EQ(result.store.size(), 40002);
        EXPECT_EQ(flat(result.store.sample(123)).tokens, (std::vector<int32_t>{1, 123 % 97, 123 % 89, 123 % 83}));
        EXPECT_EQ(result.store.place(20000), b + ":1");
        hashes.insert(sha256_file(result.path));
        fs::remove(result.path);
    }
    EXPECT_EQ(hashes.size(), 1u);
}

TEST_F(Store, TheFirstBadRowIsNamedForAnyNumberOfThreads) {
    std::string many;
    for (int i = 1; i <= 20000; ++i)
        many += i == 9000 || i == 15000 ? "{\"input_ids\": [1, 100]}\n" : "{\"input_ids\": [1, 2, 3]}\n";
    const std::string path = write("a.jsonl", many + "not JSON\n");
    for (const int threads : {1, 4}) {
        StoreRequest threaded = request({path});
        threaded.threads = threads;
        expect_refusal(Exit::data, {path + ":9000", "100"}, [&] { build_store(threaded); });
    }
    EXPECT_TRUE(fs::is_empty(folder_ + "/prepared"));
}

TEST_F(Store, WeightsOfRowsAreCounted) {
    const std::string path = write("a.jsonl", R"({"input_ids": [1, 2, 3], "weight": 2}
{"input_ids": [1, 2, 3], "weight": 0}
{"input_ids": [1, 2, 3], "token_weights": [0, 0.5, 1], "weight": 3}
{"input_ids": [1, 2, 3], "token_weights": [0, 1, 1], "weight": 1}
)");
    const StoreResult result = build_store(request({path}));
    EXPECT_EQ(result.store.target_weights(), (std::vector<double>{4, 4.5, 2}));
    const StoreStatistics& s = result.store.statistics;
    EXPECT_EQ(s.notes[RowNote::weighted].first, (std::vector<std::string>{path + ":1", path + ":3"}));
    EXPECT_EQ(s.notes[RowNote::dropped_nothing_learned].first, std::vector<std::string>{path + ":2"});
    const std::string report = prepare_report(result, {.packing_length = 8}, nullptr);
    EXPECT_NE(report.find("6 (66.7% of the tokens), with weights of 1.75 on average"), std::string::npos) << report;
}

TEST_F(Store, DataThatLeavesNothing) {
    expect_refusal(Exit::config, {"no data sets are given for train"}, [&] { build_store(request({})); });
    expect_refusal(Exit::data, {"missing.jsonl"}, [&] { build_store(request({folder_ + "/missing.jsonl"})); });
    const std::string path = write("a.jsonl", R"({"input_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9]})");
    expect_refusal(Exit::data,
                   {"no sample is left for train", "1 row read (the longest has 9 tokens), all dropped: 1 too long"},
                   [&] { build_store(request({path})); });
}

TEST_F(Store, AnUnwritableFolderIsReported) {
    StoreRequest blocked = request({write("a.jsonl", rows)});
    blocked.folder = write("file", "") + "/prepared";
    expect_refusal(Exit::storage, {blocked.folder}, [&] { build_store(blocked); });
}

/// A store that has a sample with a stem and branches; text rows have none.
TokenStore pair_store() {
    TokenStore store;
    store.statistics.files = {{.path = "pairs.jsonl", .type = "tokens", .rows = 2}};
    store.settings = "{}";
    Sample pair = sample_of({{5, 6, 7, 8, 9}, {0, 0, 1, 1, 0.5f}, {2, 4}, 0.25f});
    pair.pairs[0].weight = 3;
    store.add(pair, 0, 1);
    store.add(sample_of({{3, 4}, {0, 1}}), 0, 2);
    store.count_samples();
    return store;
}

TEST_F(Store, SequencesAndWeightsSurvive) {
    const TokenStore store = pair_store();
    EXPECT_EQ(store.statistics.learned_tokens, 4);
    EXPECT_EQ(store.statistics.learned_weight, 3.5);
    EXPECT_EQ(store.statistics.pairs, 1);
    EXPECT_EQ(store.statistics.answers, 2);
    EXPECT_EQ(store.statistics.pair_tokens, 5);
    EXPECT_EQ(store.statistics.repeated_tokens, 7);
    EXPECT_EQ(store.pairs(), (std::vector<PairTotals>{{1, 3}, {}}));
    EXPECT_EQ(store.sample(0).pairs, (std::vector<AnswerPair>{{0, 1, 0.25f, 3}}));
    store.write(folder_ + "/pairs.h5", "k");
    expect_equal(TokenStore::open(folder_ + "/pairs.h5", "k", 10), store);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);  // no temporary file is left
}

TEST_F(Store, NumbersThatCameWithAnswersSurvive) {
    const Philox random{9, 1};
    uint64_t at = 0;
    std::vector<Sample> samples;
    for (int i = 0; i < 40; ++i) samples.push_back(random_tree(random, at, {.sequences = 3, .vocab = 10}));
    samples.push_back(sample_of({{3, 4}, {0, 1}}));
    std::erase_if(samples, [](const Sample& s) { return s.length() == 0; });
    for (const size_t first : {size_t{0}, samples.size() / 2, samples.size() - 1}) {  // of the later of two stores
        TokenStore store, later;
        for (TokenStore* part : {&store, &later}) part->statistics.files = {{.path = "data.jsonl"}};
        for (size_t i = 0; i < samples.size(); ++i) (i < first ? store : later).add(samples[i], 0, 1);
        store.append(later);
        store.count_samples();
        store.write(folder_ + "/numbers.h5", "k");
        const TokenStore found = TokenStore::open(folder_ + "/numbers.h5", "k", 10);
        for (size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(found.sample(static_cast<int64_t>(i)), samples[i]) << i;
    }
}

TEST_F(Store, ASubsetCountsItsOwnSamples) {
    const TokenStore part = pair_store().subset([](int64_t i) { return i == 1; });
    ASSERT_EQ(part.size(), 1);
    EXPECT_EQ(part.sample(0), sample_of({{3, 4}, {0, 1}}));
    EXPECT_EQ(part.place(0), "pairs.jsonl:2");
    EXPECT_EQ(part.statistics.samples, 1);
    EXPECT_EQ(part.statistics.files[0].samples, 1);
    EXPECT_EQ(part.statistics.tokens, 2);
    EXPECT_EQ(part.statistics.learned_tokens, 1);
    EXPECT_EQ(part.statistics.pairs, 0);
    EXPECT_EQ(part.statistics.pair_tokens, 0);
    EXPECT_EQ(part.statistics.lengths.max, 2);
}

TEST_F(Store, ADamagedFileIsNeverUsed) {
    const std::string path = folder_ + "/pairs.h5", advice = "delete this file";
    pair_store().write(path, "k");
    const std::string whole = read_file(path);
    const auto open = [&] { TokenStore::open(path, "k", 10); };
    ASSERT_NO_THROW(open());
    expect_refusal(Exit::data, {path, "key is 'k', expected 'other'", advice},
                   [&] { TokenStore::open(path, "other", 10); });
    expect_refusal(Exit::data, {path, "tokens[4] is 9, expected an id in [0, 9)", advice},
                   [&] { TokenStore::open(path, "k", 9); });

    const int32_t tokens[] = {5, 6, 7, 8, 9};
    std::string flipped = whole;
    const size_t at = flipped.find(std::string(reinterpret_cast<const char*>(tokens), sizeof tokens));
    ASSERT_NE(at, std::string::npos);
    flipped[at] ^= 1;
    write("pairs.h5", flipped);
    expect_refusal(Exit::data, {path, "payload_sha256 is '", "expected '", advice}, open);

    for (const size_t bytes : {size_t{0}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
        write("pairs.h5", whole.substr(0, bytes));
        expect_refusal(Exit::data, {path, advice}, open);
    }
    write("pairs.h5", "not HDF5 at all");
    expect_refusal(Exit::data, {path, advice}, open);
}

// Files with a correct hash but contradictory content, as another program could write them.
TEST_F(Store, ContradictionsAreRefused) {
    const auto written = [&](const std::function<void(TokenStore&)>& fill) {
        TokenStore store = pair_store();
        fill(store);
        const std::string path = folder_ + "/bad.h5";
        fs::remove(path);
        store.write(path, "k");
        return path;
    };
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::tuple<Sample, int32_t, const char*> cases[] = {
        {{.sequences = {{.tokens = {1, -1}}}}, 0, "tokens[8] is -1"},
        {{.sequences = {{.tokens = {1, 2}, .learned = {{1, 2, -1}}}}}, 0, "sample 2: sequence 0"},
        {{.sequences = {{.tokens = {1, 2}, .learned = {{1, 2, infinity}}}}}, 0, "with weight inf"},
        {{.sequences = {{.tokens = {1, 2}, .learned = {{0, 2, 1}}}}}, 0, "learns [0, 2)"},
        {{.sequences = {{.tokens = {1, 2}, .learned = {{1, 3, 1}}}}}, 0, "learns [1, 3)"},
        {{.sequences = {{}}}, 0, "sample 2 has no token"},
        {{}, 0, "sequence_begins[3] is 3, expected at least 4"},
        {{.sequences = {{.tokens = {1, 2}}, {.shared = 3}}}, 0, "sequence 1 of a sample shares 3 tokens with one of 2"},
        {{.sequences = {{.shared = 1, .tokens = {1, 2}}}}, 0, "sequence 0 of a sample shares 1 tokens with one of 0"},
        {{.sequences = {{.tokens = {1}}, {.tokens = {2}}}, .pairs = {{0, 2}}}, 0, "a pair of sequences 0 and 2 of 2"},
        {{.sequences = {{.tokens = {1}}, {.tokens = {2}}}, .pairs = {{0, 1, std::nanf("")}}}, 0, "with margin nan"},
        {{.sequences = {{.tokens = {1}}, {.tokens = {2}}}, .pairs = {{0, 1, 0, 0}}}, 0, "margin 0 and weight 0"},
        {{.sequences = {{.tokens = {1, 2}}}}, 1, "source_files[2] is 1, expected an index below 1"},
    };
    for (const auto& [sample, file, message] : cases) {
        const std::string path = written([&](TokenStore& store) { store.add(sample, file, 3); });
        expect_refusal(Exit::data, {path, message, "delete this file"}, [&] { TokenStore::open(path, "k", 10); });
    }
    const std::string path = folder_ + "/foreign.h5";
    Hdf5Writer foreign(path);
    foreign.attribute("format", "something else");
    foreign.close();
    expect_refusal(Exit::data, {path, "format is 'something else', expected 'colonnade token store'"},
                   [&] { TokenStore::open(path, "k", 10); });
}

TEST_F(Store, LengthTableIsNearestRank) {
    std::vector<int64_t> lengths(200);
    for (size_t i = 0; i < lengths.size(); ++i) lengths[i] = static_cast<int64_t>(200 - i);
    const LengthTable table = length_table(lengths);
    EXPECT_EQ(table.min, 1);
    EXPECT_EQ(table.p5, 10);
    EXPECT_EQ(table.p25, 50);
    EXPECT_EQ(table.p50, 100);
    EXPECT_EQ(table.p75, 150);
    EXPECT_EQ(table.p95, 190);
    EXPECT_EQ(table.p99, 198);
    EXPECT_EQ(table.max, 200);
    EXPECT_EQ(length_table({7}).p5, 7);
}

TEST_F(Store, TheReportShowsCountsPackingAndTheFirstSample) {
    const std::string path = write("a.jsonl", rows);
    const StoreResult result = build_store(request({path}));
    const std::string report = prepare_report(result, {.packing_length = 8}, nullptr);
    const std::string parts[] = {"2 of 5 rows",
                                 "1 (" + path + ":3)",
                                 "2 (" + path + ":4, " + path + ":5)",
                                 "3 (50.0% of the tokens)",
                                 "1 x 8 tokens, 2.0 samples each",
                                 "75.0% real tokens, 25.0% padding",
                                 "37.5% real tokens",
                                 "1 10 [11 12]"};
    for (const std::string& part : parts) {
        EXPECT_NE(report.find(part), std::string::npos) << report << "\nlacks " << part;
    }
    FlatSample longest{std::vector<int32_t>(500, 7), std::vector<float>(500, 0)};
    longest.weights.back() = 1;
    const std::string text = render_sample(sample_of(longest), nullptr);
    EXPECT_NE(text.find(" 7 ... 340 tokens ... 7 "), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with(" [7]"));
    longest.weights.assign(500, 1);
    EXPECT_NE(render_sample(sample_of(longest), nullptr).find("7 7] ... 340 tokens ... [7 7"), std::string::npos);
    EXPECT_EQ(render_sample(sample_of({{1, 2, 3, 4}, {0, 1, 0, 1}}), nullptr), "1 [2] 3 [4]");
}

}  // namespace
}  // namespace colonnade
