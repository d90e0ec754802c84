// A conversation with rejected answers at several turns, from the row to the gradients: it equals a row of chosen and
// rejected for each of its pairs.

#include "data/store/build_store.h"
#include "tests/support/chat_templates.h"
#include "tests/support/file_test.h"
#include "tests/support/small_tokenizer.h"
#include "tests/support/step_outcome.h"
#include "train/objectives/preference_objective.h"
#include "train/objectives/reward_objective.h"

namespace colonnade {
namespace {

class SeveralTurnsLoss : public FileTest {
  protected:
    std::vector<Sample> samples_of(const std::string& rows) const {
        spill(path("rows.jsonl"), rows);
        StoreRequest request;
        request.folder = path("prepared");
        request.datasets = {{.path = path("rows.jsonl")}};
        request.rows = RowKind::preferences;
        request.tokenizer = tokenizer();
        request.encode.chat_template =
            std::make_shared<const ChatTemplate>("own", kQwenLike, "", ChatTemplate::Settings{});
        request.progress.write = [](std::string_view) {};
        const TokenStore store = build_store(request).store;
        std::vector<Sample> samples;
        for (int64_t i = 0; i < store.size(); ++i) samples.push_back(store.sample(i));
        return samples;
    }
    static std::shared_ptr<const Tokenizer> tokenizer() {
        static const auto made = small_tokenizer({.special = kFamilyMarkers});
        return made;
    }
};

/// One sample a batch. The reference of a sequence follows from its tokens.
std::vector<Batch> batches_of(const std::vector<Sample>& samples) {
    std::vector<Batch> batches;
    for (const Sample& sample : samples) {
        Batch& batch = batches.emplace_back(make_batch({{&sample}}));
        for (size_t s = 0; s < sample.sequences.size(); ++s) {
            const std::vector<int32_t> whole = sample.whole(s);
            batch.reference.push_back(-20 - 0.25 * static_cast<double>(whole[whole.size() - 3] % 64));
        }
    }
    return batches;
}

std::string turn(const std::string& role, const std::string& text, const std::string& more = "") {
    return fmt::format(R"({{"role": "{}", "content": "{}"{}}})", role, text, more);
}

TEST_F(SeveralTurnsLoss, EqualsARowForEachPair) {
    const std::string one = turn("user", "one plus one"), two = turn("assistant", R"(<think>\nadd\n</think>\n\ntwo)"),
                      three = turn("user", "and one more"), four = turn("assistant", "three it is"),
                      five = turn("user", "twice that");
    const std::string tree =
        fmt::format(R"({{"messages": [{}, {}, {}, {}, {}, {}], "weight": 2}})", one,
                    turn("assistant", R"(<think>\nadd\n</think>\n\ntwo)", R"(, "rejected": "three or so")"), three,
                    four, five, turn("assistant", "six", R"(, "rejected": ["five", "six hundred"], "weight": 0.5)"));
    const auto flat = [](const std::string& before, const std::string& chosen, const std::string& rejected,
                         double weight) {
        return fmt::format(R"({{"messages": [{}], "chosen": {}, "rejected": {}, "weight": {}}})"
                           "\n",
                           before, chosen, rejected, weight);
    };
    const std::string later = fmt::format("{}, {}, {}, {}, {}", one, two, three, four, five);
    const std::string rows = flat(one, two, turn("assistant", "three or so"), 2) +
                             flat(later, turn("assistant", "six"), turn("assistant", "five"), 1) +
                             flat(later, turn("assistant", "six"), turn("assistant", "six hundred"), 1);
    const std::vector<Sample> trees = samples_of(tree), apart = samples_of(rows);
    ASSERT_EQ(trees.size(), 1u);
    ASSERT_EQ(apart.size(), 3u);
    for (const bool score : {false, true}) {
        SCOPED_TRACE(score);
        PreferenceMix mix;
        mix.count = 2;
        mix.losses[0] = PreferenceLoss::sigmoid;
        mix.losses[1] = PreferenceLoss::ipo;
        mix.weights[0] = mix.weights[1] = 1;
        std::shared_ptr<const Objective> objective = std::make_shared<PreferenceObjective>(mix);
        if (score) objective = std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01);
        ModelConfig config = tiny_config(Architecture::llama);
        config.vocab_size = tokenizer()->vocab_size();
        config.score_head = score;
        config.max_position_embeddings = 512;
        LearnerOptions options =
            tiny_options(DType::f64, 1, 512, {.objective = objective, .reference = Reference::batches});
        options.density = {.terms = 2, .sequences = 1, .pairs = 1};
        Learner learner(config, options);
        randomize(learner, 1);
        const std::vector<Batch> whole = batches_of(trees), parts = batches_of(apart);
        double tokens = 0, total = 0;
        for (const Batch& batch : parts) {
            tokens += static_cast<double>(batch.real_tokens);
            total += objective->total(batch);
        }
        EXPECT_EQ(total, 4);
        EXPECT_LT(static_cast<double>(whole[0].real_tokens), 0.7 * tokens);
        const Outcome a = run(learner, whole, objective->total(whole[0])), b = run(learner, parts, total);
        EXPECT_NEAR(a.sums.mean(), b.sums.mean(), 1e-12 * b.sums.mean());
        EXPECT_LE(distance(a.gradients, b.gradients), 1e-12);
        EXPECT_GT(distance(run(learner, {parts[0]}, 2).gradients, b.gradients), 1e-3) << "every pair counts";
    }
}

}  // namespace
}  // namespace colonnade
