// Runs of stage grpo from a user's view: the log, where old and reference log-probabilities come from, the cache, resuming
// to the bit, the warning about numbers that do not fit.

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/tiny_run.h"
#include "train/run/given_logps.h"
#include "train/run/machine.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// Groups of answers to a prompt of 20 tokens. Those of reward 1 follow the chain of chain_rows(), the others another.
TokenStore rollouts(const TokenStore& like, int64_t groups, int64_t first) {
    TokenStore store;
    store.settings = like.settings;
    store.statistics = like.statistics;
    for (int64_t group = 0; group < groups; ++group)
        for (int32_t answer = 0; answer < 4; ++answer) {
            Sequence s;
            int64_t id = (first + group) % chain_vocab;
            const bool good = answer % 2 == 0;
            for (int64_t i = 0; i < 24 + answer; ++i, id = ((i < 20 || good ? 7 : 5) * id + 3) % chain_vocab)
                s.tokens.push_back(static_cast<int32_t>(id));
            s.learned = {{20, 24 + answer, 1}};
            s.advantage = good ? 0.75f : -0.75f;
            s.reward = good ? 1.0f : 0.0f;
            store.add({.sequences = {s}}, 0, group + 1);
        }
    store.count_samples();
    return store;
}

/// The first four answers, each changed.
TokenStore with(const TokenStore& of, const std::function<void(Sequence&)>& change) {
    TokenStore store;
    store.settings = of.settings;
    store.statistics = of.statistics;
    for (int64_t i = 0; i < 4; ++i) {
        Sample sample = of.sample(i);
        change(sample.sequences[0]);
        store.add(sample, 0, i + 1);
    }
    store.count_samples();
    return store;
}

class PolicyRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(
            "per_device_train_batch_size: 1\ngradient_accumulation_steps: 2\nnum_train_epochs: 3\nlearning_rate: 0.01\n"
            "warmup_steps: 2\nlogging_steps: 1\nval_size: 16\nsave_strategy: epoch\nshare_prefixes: false\n");
    }

    /// A session of stage grpo with rows made here. `change` may give them numbers.
    Session session(const std::string& run, std::vector<std::string> arguments,
                    const std::function<void(TokenStore&)>& change = {}) const {
        arguments.insert(arguments.end(), {output(run), "stage=grpo"});
        Session s = open_session(load_config(config(), {output(run)}));  // of rows that are replaced
        s.config = load_config(config(), arguments).config;
        settle_machine(s.config);
        s.train.store = rollouts(s.train.store, 12, 0);
        s.eval.store = rollouts(s.eval.store, 4, 17);
        if (change)
            for (StoreResult* split : {&s.train, &s.eval}) change(split->store);
        s.train.prefixes = s.train.store.prefix_order();
        s.eval.prefixes = s.eval.store.prefix_order();
        settle_given_logps(s);
        return s;
    }
    /// What was printed.
    std::string learn(Session session) const {
        return quietly([&] { Trainer(std::move(session)).run(); });
    }
    std::vector<std::string> tables() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(path("prepared")))
            if (entry.path().filename().string().starts_with("reference-")) names.push_back(entry.path());
        return names;
    }
};

TEST_F(PolicyRun, LearnsWhatWasRewarded) {
    const std::string printed = learn(session("run", {"old_logps=start", "beta=0.02"}));
    EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
    EXPECT_NE(
        printed.find("\nloss       dapo: divided by the learned tokens of a step; ratio of importance_sampling_level "
                     "token, old_logps start, beta 0.02\n"),
        std::string::npos)
        << printed;
    const std::vector<Json> log = read_log(path("run"));
    const int64_t last = last_step(path("run"));
    ASSERT_GE(last, 6);
    EXPECT_NEAR(value_at(log, "ratio/mean", 1), 1, 1e-5);
    EXPECT_NEAR(value_at(log, "ratio/max", 1), 1, 1e-4);
    EXPECT_EQ(value_at(log, "ratio/outside", 1), 0);
    EXPECT_NEAR(value_at(log, "kl", 1), 0, 1e-8);
    EXPECT_EQ(value_at(log, "clip_ratio/region_mean", 1), 0);
    EXPECT_GT(value_at(log, "kl", last), 1e-3);
    EXPECT_GT(value_at(log, "clip_ratio/region_mean", last), 0);
    for (int64_t step = 1; step <= last; ++step) {
        EXPECT_GE(value_at(log, "completions/min_length", step), 4);
        EXPECT_LE(value_at(log, "completions/max_length", step), 7);
        EXPECT_NEAR(value_at(log, "reward", step), 0.5, 0.5);
    }
    EXPECT_EQ(value_at(log, "eval_reward", last), 0.5);
    EXPECT_LT(value_at(log, "loss", last), -0.05) << "good answers are more probable than they were";
    EXPECT_TRUE(std::isfinite(value_at(log, "eval_loss", last)));
    EXPECT_LT(value_at(log, "entropy", last), value_at(log, "entropy", 1));
}

TEST_F(PolicyRun, EveryLossTrains) {
    for (const char* loss : {"grpo", "dr_grpo", "luspo", "cispo", "sapo", "rloo", "gspo"}) {
        const bool gspo = loss == std::string("gspo");
        std::vector<std::string> keys = {"old_logps=start", "max_completion_length=8",
                                         fmt::format("loss_type={}", gspo ? "grpo" : loss)};
        if (gspo) keys.push_back("importance_sampling_level=sequence");
        const std::string printed = learn(session(loss, keys));
        EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
        const std::vector<Json> log = read_log(path(loss));
        EXPECT_LT(value_at(log, "entropy", last_step(path(loss))), value_at(log, "entropy", 1)) << loss;
    }
    EXPECT_EQ(tables().size(), 2u) << "one for each split, whatever the loss";
}

TEST_F(PolicyRun, OneTableServesAsOldAndAsReference) {
    const std::vector<std::string> brief = {"max_steps=2", "num_train_epochs=0", "old_logps=start"};
    std::vector<std::string> both = brief;
    both.push_back("beta=0.1");
    const std::string first = learn(session("first", both));
    EXPECT_NE(first.find("reference train"), std::string::npos) << first;
    EXPECT_EQ(tables().size(), 2u);
    EXPECT_NE(learn(session("second", brief)).find("reference of 48 samples: read from"), std::string::npos);
    EXPECT_EQ(tables().size(), 2u);
    // Another temperature has other log-probabilities.
    both.push_back("temperature=0.5");
    EXPECT_EQ(learn(session("third", both)).find("read from"), std::string::npos);
    EXPECT_EQ(tables().size(), 4u);
    EXPECT_NEAR(value_at(read_log(path("third")), "ratio/mean", 1), 1, 1e-5);
}

TEST_F(PolicyRun, WithoutOldLogProbabilitiesTheFirstUpdateIsTheSame) {
    const auto run = [&](const std::string& name, const std::string& old) {
        const std::string printed = learn(session(name, {"old_logps=" + old, "warmup_steps=0", "warmup_ratio=0"}));
        EXPECT_EQ(printed.find("so every ratio is 1") != std::string::npos, old == "row") << printed;
        return read_log(path(name));
    };
    const std::vector<Json> start = run("start", "start"), row = run("row", "row"), none = run("none", "none");
    for (const char* key : {"loss", "grad_norm"}) {
        EXPECT_NEAR(value_at(row, key, 1), value_at(start, key, 1), 1e-5);
        EXPECT_EQ(value_at(row, key, 6), value_at(none, key, 6));
        EXPECT_GT(std::abs(value_at(row, key, 6) - value_at(start, key, 6)), 1e-4);
    }
    EXPECT_EQ(value_at(none, "ratio/max", 6), 1);
    EXPECT_GT(value_at(start, "ratio/max", 6), 1.001);
}

TEST_F(PolicyRun, WarnsIfTheOldLogProbabilitiesOfRowsDoNotFit) {
    const auto given = [](float old) {
        return [old](TokenStore& store) {
            store.set_logps(&GivenLogps::old, std::vector<float>(static_cast<size_t>(store.learned_count()), old));
        };
    };
    const std::vector<std::string> brief = {"max_steps=2", "num_train_epochs=0"};
    // About what a model of small random weights gives.
    EXPECT_EQ(learn(session("fits", brief, given(-std::log(31.0f)))).find("warning"), std::string::npos);
    const std::string printed = learn(session("wrong", brief, given(-1)));
    EXPECT_NE(printed.find("warning: before the first update the ratio of new to old probabilities is 0.0"),
              std::string::npos)
        << printed;
    EXPECT_NE(printed.find("100.0 % of the ratios are outside [0.8, 1.25]"), std::string::npos) << printed;
}

TEST_F(PolicyRun, SaysWhichNumbersOfRowsAreUsed) {
    const auto give = [](TokenStore& store) {
        std::vector<float> some(static_cast<size_t>(store.learned_count()), -3);
        store.set_logps(&GivenLogps::sampled, some);
        some.front() = std::nanf("");
        store.set_logps(&GivenLogps::reference, some);
    };
    const auto notices = [&](const std::vector<std::string>& keys) {
        return fmt::format("{}", fmt::join(session("run", keys, give).notices, "\n"));
    };
    const std::string plain = notices({});
    EXPECT_NE(plain.find("sampled log-probabilities: those of the rows are not used; they are compared with old ones"),
              std::string::npos)
        << plain;
    EXPECT_NE(plain.find("reference log-probabilities: those of the rows are not used (beta 0)"), std::string::npos);
    const Session start = session("run", {"old_logps=start", "beta=0.1"}, give);
    EXPECT_FALSE(start.train.store.logps(&GivenLogps::sampled).empty());
    EXPECT_TRUE(start.train.store.logps(&GivenLogps::reference).empty()) << "some are missing";
    EXPECT_EQ(missing_logps(start).tables(), 2);
    EXPECT_NE(notices({"beta=0.1"}).find(", they have them for 350 of 352 learned tokens only"), std::string::npos)
        << notices({"beta=0.1"});
}

TEST_F(PolicyRun, RefusesRowsThatTeachNothing) {
    expect_error(
        Exit::data, "the advantage of all 4 answers is 0: stage grpo learns from answers that are better", [&] {
            session("run", {}, [](TokenStore& store) { store = with(store, [](Sequence& s) { s.advantage = 0; }); });
        });
    const Session silent = session("run", {}, [](TokenStore& store) {
        int64_t number = 0;
        store = with(store, [&](Sequence& s) {
            if (++number == 2) s.learned.clear();
        });
    });
    EXPECT_NE(fmt::format("{}", fmt::join(silent.notices, "\n"))
                  .find("2 answers have no learned token; they count among the answers of a step, and teach nothing"),
              std::string::npos);
}

TEST_F(PolicyRun, ResumesToTheBit) {
    const std::vector<std::string> often = {"save_strategy=steps", "save_steps=1",    "save_total_limit=0",
                                            "eval_steps=4",        "old_logps=start", "beta=0.02"};
    learn(session("unbroken", often));
    const RunResult unbroken = result_of(path("unbroken"));
    const int64_t last = last_step(path("unbroken"));
    for (const int64_t stop : {int64_t{1}, last - 1}) {
        const std::string name = fmt::format("from-{}", stop);
        fs::create_directories(path(name));
        fs::copy(checkpoint_folder(path("unbroken"), stop), checkpoint_folder(path(name), stop));
        fs::copy(path("unbroken") + "/metrics.jsonl", path(name) + "/metrics.jsonl");
        // If the cache is gone, the tables are computed again from the weights that the run started from.
        if (stop == 1)
            for (const std::string& file : tables()) fs::remove(file);
        std::vector<std::string> resuming = often;
        resuming.push_back("resume_from_checkpoint=auto");
        learn(session(name, resuming));
        expect_equal(result_of(path(name)), unbroken, name);
    }
}

TEST_F(PolicyRun, AccumulationAndSharingEqualABatchOfWholeAnswers) {
    const auto log_of = [&](const std::string& name, std::vector<std::string> keys, bool shares) {
        keys.insert(keys.end(), {"old_logps=start", "beta=0.02", "learning_rate=1e-3", "eval_steps=1"});
        Session s = session(name, keys);
        if (!shares) s.train.prefixes = s.eval.prefixes = {};
        learn(std::move(s));
        return read_log(path(name));
    };
    // Every step has the whole set: what meets in a row does not matter.
    const std::vector<std::string> whole = {"per_device_train_batch_size=64", "gradient_accumulation_steps=1"},
                                   parts = {"per_device_train_batch_size=4", "gradient_accumulation_steps=16"};
    const std::vector<Json> expected = log_of("whole", whole, false), accumulated = log_of("parts", parts, false),
                            shared = log_of("shared", parts, true);
    for (const std::vector<Json>* log : {&accumulated, &shared})
        for (int64_t step = 1; step <= 3; ++step)
            for (const auto& [key, value] : expected.front().items())
                if (value.is_number_float() && key != "epoch" && key != "grad_norm") {
                    const double number = value_at(expected, key, step);
                    EXPECT_NEAR(value_at(*log, key, step), number, 2e-5 * std::max(1.0, std::abs(number)))
                        << key << " at step " << step;
                }
}

}  // namespace
}  // namespace colonnade
