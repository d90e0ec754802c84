// Weights of rows, messages and tokens from the file to the gradients: a row with weight n equals the row n times.

#include "data/store/build_store.h"
#include "tests/support/file_test.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

class RowWeights : public FileTest {
  protected:
    /// Loss sums and gradients of a step over the rows of a JSONL text, `per_pack` samples in each pack, in double.
    Outcome step(const std::string& rows, size_t per_pack, Sharing sharing = Sharing::sample) const {
        spill(path("rows.jsonl"), rows);
        StoreRequest request;
        request.folder = path("prepared");
        request.datasets = {{.path = path("rows.jsonl")}};
        request.encode.vocab_size = tiny_config(Architecture::llama).vocab_size;
        request.progress.write = [](std::string_view) {};
        const TokenStore store = build_store(request).store;
        std::vector<Sample> samples;
        for (int64_t i = 0; i < store.size(); ++i) samples.push_back(store.sample(i));
        std::vector<Batch> batches;
        double total = 0;
        for (size_t begin = 0; begin < samples.size(); begin += per_pack) {
            std::vector<const Sample*> pack;
            for (size_t i = begin; i < std::min(samples.size(), begin + per_pack); ++i) pack.push_back(&samples[i]);
            batches.push_back(make_batch({pack}, {.sharing = sharing}));
            total += batches.back().target_weight;
        }
        return run(*tiny_learner(tiny_config(Architecture::llama), DType::f64, 1, 64), batches, total);
    }
};

void expect_equal(const Outcome& a, const Outcome& b) {
    EXPECT_NEAR(a.sums.weight, b.sums.weight, 1e-12);
    EXPECT_NEAR(a.sums.nll, b.sums.nll, 1e-12);
    EXPECT_NEAR(a.sums.correct, b.sums.correct, 1e-12);
    EXPECT_LE(distance(a.gradients, b.gradients), 1e-13);
}

std::string row(const std::string& ids, const std::string& more = "") {
    return fmt::format("{{\"input_ids\": [{}]{}}}\n", ids, more);
}

const std::string kA = "3, 14, 15, 9, 2, 6", kB = "5, 3, 5, 8, 9", kC = "3, 14, 15, 7, 7";

TEST_F(RowWeights, AWeightOfTwoIsTheRowTwice) {
    const std::string once = row(kA) + row(kB) + row(kC),
                      weighted =
                          row(kA, R"(, "weight": 2)") + row(kB, R"(, "weight": 0)") + row(kC, R"(, "weight": 3)"),
                      repeated = row(kA) + row(kA) + row(kC) + row(kC) + row(kC);
    const Outcome expected = step(repeated, 1);
    EXPECT_GT(distance(step(once, 3).gradients, expected.gradients), 1e-3) << "weights make a difference";
    for (const size_t per_pack : {1u, 3u})
        for (const Sharing sharing : {Sharing::sample, Sharing::row})
            expect_equal(step(weighted, per_pack, sharing), expected);
    // Only what weights are to each other counts for the mean and its gradients.
    const Outcome scaled = step(row(kA, R"(, "weight": 0.5)") + row(kC, R"(, "weight": 0.75)"), 2);
    EXPECT_NEAR(scaled.sums.mean(), expected.sums.mean(), 1e-13);
    EXPECT_LE(distance(scaled.gradients, expected.gradients), 1e-13);
}

/// A token of weight n counts as in n rows that learn it.
TEST_F(RowWeights, ATokenCountsByItsWeight) {
    const std::string weighted = row(kA, R"(, "token_weights": [0, 1, 0, 2, 3, 1])"),
                      repeated = row(kA, R"(, "loss_mask": [0, 1, 0, 1, 1, 1])") +
                                 row(kA, R"(, "loss_mask": [0, 0, 0, 1, 1, 0])") +
                                 row(kA, R"(, "labels": [-100, -100, -100, -100, 2, -100])");
    expect_equal(step(weighted, 1), step(repeated, 1));
    expect_equal(step(row(kA, R"(, "token_weights": [0, 0.5, 0, 1, 1.5, 0.5], "weight": 2)"), 1), step(repeated, 1));
}

}  // namespace
}  // namespace colonnade
