// A teacher's lists in the file beside a store: read back for every sample, whatever the number of threads and the order of
// samples; cuts and lists without an entry; damage is found.

#include <fstream>

#include "data/packing/loader.h"
#include "data/prepare_report.h"
#include "data/store/build_store.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

constexpr int32_t vocab = 1000;

/// Tokens first, first + 1, ... of which all but the first are learned; the list of a token holds it and its successors.
std::string row(int32_t first, int32_t length, int32_t entries) {
    std::string ids, lists, log_probs;
    for (int32_t i = 0; i < length; ++i) {
        ids += fmt::format("{}{}", i ? ", " : "", first + i);
        std::string list, of_list;
        for (int32_t e = 0; e < entries; ++e) {
            list += fmt::format("{}{}", e ? ", " : "", first + i + e);
            of_list += fmt::format("{}{}", e ? ", " : "", -2 - 0.25 * e);
        }
        lists += fmt::format("{}[{}]", i ? ", " : "", list);
        log_probs += fmt::format("{}[{}]", i ? ", " : "", of_list);
    }
    return fmt::format(R"({{"input_ids": [{}], "teacher_ids": [{}], "teacher_log_probs": [{}]}})"
                       "\n",
                       ids, lists, log_probs);
}

class TaughtStore : public FileTest {
  protected:
    StoreRequest request(const std::string& rows, int threads = 1) const {
        spill(path("rows.jsonl"), rows);
        StoreRequest request;
        request.folder = path("prepared");
        request.datasets = {{.path = path("rows.jsonl")}};
        request.rows = RowKind::taught;
        request.encode = {.max_length = 6, .excess_length = ExcessLength::truncate, .vocab_size = vocab};
        request.threads = threads;
        request.progress.write = [](std::string_view) {};
        return request;
    }
    std::string teacher_file() const {
        for (const auto& entry : std::filesystem::directory_iterator(path("prepared")))
            if (entry.path().extension() == ".teacher") return entry.path();
        return "";
    }
};

void expect_lists(const StoreResult& result, int64_t sample, int32_t first, int32_t learned, int32_t entries) {
    Sample read = result.store.sample(sample);
    EXPECT_TRUE(read.sequences.at(0).teacher.empty());
    result.teacher->fill(read);
    const TeacherLists& lists = read.sequences.at(0).teacher;
    ASSERT_EQ(lists.tokens(), learned);
    for (int32_t token = 0; token < learned; ++token) {
        ASSERT_EQ(lists.length_of(token), entries);
        for (int32_t e = 0; e < entries; ++e) {
            const auto at = static_cast<size_t>(lists.begins[static_cast<size_t>(token)] + e);
            EXPECT_EQ(lists.ids[at], first + 1 + token + e);
            EXPECT_EQ(lists.log_probs[at], static_cast<float>(-2 - 0.25 * e));
        }
    }
}

TEST_F(TaughtStore, ListsAreReadBackForEverySample) {
    std::string rows;
    for (int32_t i = 0; i < 700; ++i) rows += row(i % 900, 2 + i % 7, 1 + i % 40);  // the longest are cut to 6 tokens
    for (const int threads : {1, 4}) {
        std::filesystem::remove_all(path("prepared"));
        for (const bool again : {false, true}) {
            const StoreResult result = build_store(request(rows, threads));
            EXPECT_EQ(result.reused, again);
            ASSERT_EQ(result.store.size(), 700);
            for (int32_t i = 0; i < 700; ++i) expect_lists(result, i, i % 900, std::min(2 + i % 7, 6) - 1, 1 + i % 40);
            const TeacherCounts& counts = result.store.statistics.teacher;
            EXPECT_EQ(counts.longest, 40);
            EXPECT_EQ(counts.holding, counts.tokens);
            EXPECT_EQ(counts.tokens, result.store.learned_count());
            StoreResult moved;
            moved.store = result.store.select({699, 3, 3});
            moved.teacher = result.teacher;
            expect_lists(moved, 0, 699, 5, 20);
            expect_lists(moved, 1, 3, 4, 4);
            expect_lists(moved, 2, 3, 4, 4);
            EXPECT_NE(prepare_report(result, {.packing_length = 8}, nullptr).find("at most 40, which have"),
                      std::string::npos);
        }
    }
}

TEST_F(TaughtStore, TokensWithoutAnEntryAreNotLearned) {
    const StoreResult result = build_store(
        request(R"({"prompt_ids": [1, 2], "completion_ids": [3, 4, 5], "logprobs": [{"3": -1}, {}, {"9": -1}]})"));
    Sample sample = result.store.sample(0);
    EXPECT_EQ(sample.sequences[0].learned, (std::vector<LearnedSpan>{{2, 3, 1}, {4, 5, 1}}));
    result.teacher->fill(sample);
    EXPECT_EQ(sample.sequences[0].teacher.ids, (std::vector<int32_t>{3, 9}));
    EXPECT_EQ(result.store.statistics.teacher.holding, 1);
    expect_error(Exit::data, "no sample is left",
                 [&] { build_store(request(R"({"prompt_ids": [1, 2], "completion_ids": [3], "logprobs": [null]})")); });
    expect_error(Exit::data, "rows.jsonl:1: the teacher's lists hold token 1000; expected 0 to 999", [&] {
        build_store(request(R"({"prompt_ids": [1, 2], "completion_ids": [3], "logprobs": [{"1000": -1}]})"));
    });
}

TEST_F(TaughtStore, ABatchHasATargetForEveryTerm) {
    // Two samples that share three tokens, of which two are learned with other lists.
    const std::string rows =
        row(10, 4, 2) + R"({"input_ids": [10, 11, 12, 99], "teacher_ids": [[], [11], [12, 1], [99]],
                                                "teacher_log_probs": [[], [-3], [-3, -4], [-3]]})";
    std::string one_line = rows;
    std::erase(one_line, '\n');
    one_line.insert(one_line.find("}{") + 1, "\n");
    const StoreResult result = build_store(request(one_line));
    Sample a = result.store.sample(0), b = result.store.sample(1);
    for (Sample* sample : {&a, &b}) result.teacher->fill(*sample);
    const Batch batch = make_batch({{&a, &b}}, {.sharing = Sharing::row});
    EXPECT_EQ(batch.real_tokens, 5);
    ASSERT_EQ(batch.targets.size(), 6u);  // not 4
    EXPECT_EQ(batch.rows, (std::vector<int32_t>{0, 0, 1, 1, 2, 2}));
    EXPECT_EQ(batch.teacher.tokens(), 6);
    EXPECT_EQ(batch.weights, std::vector<double>(6, 1.0));
    EXPECT_EQ(batch.target_weight, 6);
    std::set<int32_t> seen(batch.term_targets.begin(), batch.term_targets.end());
    EXPECT_EQ(seen.size(), 6u);
    for (size_t s = 0; s < 2; ++s)
        for (auto term = static_cast<size_t>(batch.term_begins[s]);
             term < static_cast<size_t>(batch.term_begins[s + 1]); ++term) {
            const auto target = static_cast<size_t>(batch.term_targets[term]);
            const auto entry = static_cast<size_t>(batch.teacher.begins[target]);
            EXPECT_EQ(batch.teacher.ids[entry], batch.targets[target]);
            EXPECT_EQ(batch.teacher.log_probs[entry], batch.sequences[s].sample == 0 ? -2.0f : -3.0f);
        }
    // A loader reads them.
    Loader loader(result.store, PackSchedule(result.store.lengths(), {.packing = {.packing_length = 16}}),
                  {.teacher = result.teacher.get()});
    EXPECT_EQ(loader.next().value().batch.teacher.tokens(), 6);
}

TEST_F(TaughtStore, DamageIsFound) {
    const std::string rows = row(10, 4, 2) + row(20, 4, 2);
    const auto built = build_store(request(rows));
    const std::string file = teacher_file(), content = slurp(file);
    spill(file, content.substr(0, content.size() - 4));
    expect_error(Exit::data, "bytes, expected", [&] { build_store(request(rows)); });
    std::string wrong = content;
    wrong[content.size() - 3] ^= 1;
    spill(file, wrong);
    const StoreResult damaged = build_store(request(rows));
    Sample last = damaged.store.sample(1);
    expect_error(Exit::data, "are not those that were written; delete this file", [&] { damaged.teacher->fill(last); });
    wrong = content;
    wrong[25] = wrong[25] == 'a' ? 'b' : 'a';  // in the key
    spill(file, wrong);
    expect_error(Exit::data, "it is not of this data", [&] { build_store(request(rows)); });
    std::filesystem::remove(file);
    expect_error(Exit::data, ".teacher is missing; delete", [&] { build_store(request(rows)); });
}

}  // namespace
}  // namespace colonnade
