// share_prefixes: a step over the whole data set learns the same with and without sharing, in fewer tokens; what is in
// the way is said.

#include "train/run/shared_prefixes.h"

#include "tests/support/expect_error.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

class SharedPrefixes : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(
            "val_size: 20\nmax_steps: 1\ngradient_accumulation_steps: 64\n"
            "logging_steps: 1\nlearning_rate: 1e-2\nwarmup_steps: 0\nshare_prefixes: auto\n");
        spill(path("train.jsonl"), rows_behind_beginnings(90));
    }
    static std::vector<std::string> with(std::vector<std::string> settings) {
        settings.insert(settings.end(), {"max_length=128", "packing_length=256"});
        return settings;
    }
    Session session(std::vector<std::string> settings) const {
        settings.insert(settings.begin(), output("run"));
        return open_session(load_config(config(), with(settings)));
    }
};

/// Sliding windows end within the beginning and within the rows' own tokens, or nowhere.
TEST_F(SharedPrefixes, AStepLearnsTheSameInFewerTokens) {
    for (const int window : {0, 30, 3}) {
        SCOPED_TRACE(window);
        const auto run = [&](const char* name, const char* sharing) {
            const std::string folder = fmt::format("{}_{}", name, window);
            std::string said = train(config(), with({output(folder), sharing, "model.architecture=mistral",
                                                     fmt::format("model.sliding_window={}", window)}));
            return std::pair(std::move(said), read_log(path(folder)));
        };
        const auto [apart, a] = run("apart", "share_prefixes=false");
        const auto [shared, b] = run("shared", "share_prefixes=auto");
        for (const char* key : {"loss", "grad_norm", "eval_loss", "eval_mean_token_accuracy", "eval_perplexity"})
            EXPECT_NEAR(value_at(b, key, 1), value_at(a, key, 1), 1e-5 * std::abs(value_at(a, key, 1))) << key;
        EXPECT_EQ(value_at(b, "num_tokens", 1), value_at(a, "num_tokens", 1)) << "represented tokens";
        EXPECT_NE(shared.find("\nprefixes "), std::string::npos) << shared;
        EXPECT_EQ(apart.find("\nprefixes "), std::string::npos) << apart;
    }
    const StoreResult train = session({}).train;
    const PackPlan plan = Packer(train.store.lengths(), {.packing_length = 256}, train.prefixes).plan(0);
    EXPECT_GT(plan.saved(), 0.7);
}

TEST_F(SharedPrefixes, AreSharedOnlyIfThatChangesNothing) {
    const auto shares = [&](const std::vector<std::string>& settings) {
        return !session(settings).train.prefixes.order.empty();
    };
    const auto note = [&](const std::vector<std::string>& settings) {
        return fmt::format("{}", fmt::join(session(settings).notices, "\n"));
    };
    EXPECT_TRUE(shares({}));
    EXPECT_FALSE(shares({"share_prefixes=false"}));
    EXPECT_FALSE(shares({"packing_strategy=sequential"}));
    EXPECT_TRUE(shares({"packing_strategy=sequential", "share_prefixes=true"}));
    EXPECT_NE(note({"neftune_noise_alpha=5"}).find("but neftune_noise_alpha"), std::string::npos);
    expect_error(Exit::config, "share_prefixes: true, but neftune_noise_alpha", [&] {
        session({"neftune_noise_alpha=5", "share_prefixes=true"});
    });
    // Nothing in common: nothing to share, and no word about it.
    std::string different;
    for (int64_t first = 0; first < chain_vocab; ++first)
        different += fmt::format("{{\"input_ids\": [{}, 1, 2, 3]}}\n", first);
    spill(path("train.jsonl"), different);
    EXPECT_FALSE(shares({}));
    EXPECT_EQ(note({}).find("share"), std::string::npos);
}

TEST_F(SharedPrefixes, DropoutIsOneMaskForAllWhoShareAToken) {
    train(config(), with({output("base"), "eval_strategy=no"}));
    write_tuning("finetuning_type: lora\nlora_dropout: 0.1\n");
    const Session automatic = session({"share_prefixes=auto"}), wanted = session({"share_prefixes=true"}),
                  without = session({"share_prefixes=auto", "lora_dropout=0"});
    EXPECT_TRUE(automatic.train.prefixes.order.empty());
    EXPECT_NE(
        fmt::format("{}", fmt::join(automatic.notices, "\n"))
            .find("of the training tokens (share_prefixes), but lora_dropout would drop the same elements for all "
                  "samples that share a token; share_prefixes: true shares them nevertheless"),
        std::string::npos);
    EXPECT_FALSE(wanted.train.prefixes.order.empty());
    EXPECT_FALSE(without.train.prefixes.order.empty());
}

}  // namespace
}  // namespace colonnade
