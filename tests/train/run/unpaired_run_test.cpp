// Runs of stage kto: the log under TRL's names, resuming to the bit, and the same numbers for any split of a step into
// micro-steps and ranks, with or without shared prefixes, and for any packing of an evaluation.

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/gpu_run.h"
#include "tests/support/rank_runs.h"
#include "train/run/labelled_answers.h"
#include "train/run/shared_prefixes.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// Rows of a prompt of 12 tokens, most of which all have in common, and an answer. A desirable answer follows the chain of
/// chain_rows(), another one does not.
std::string answer_rows(int64_t rows) {
    const Philox random{8, 0};
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
        const auto draw = static_cast<uint64_t>(3 * row);
        std::vector<int64_t> ids(10, 5), labels(12, -100);
        int64_t id = static_cast<int64_t>(random.below(draw, chain_vocab));
        ids.insert(ids.end(), {id, (7 * id + 3) % chain_vocab});
        const auto length = 12 + 3 + static_cast<int64_t>(random.below(draw + 1, 20));
        const int64_t factor = random.below(draw + 2, 5) < 3 ? 7 : 5;
        for (id = ids.back(); std::ssize(ids) < length;) {
            id = (factor * id + 3) % chain_vocab;
            ids.push_back(id);
            labels.push_back(id);
        }
        text +=
            fmt::format("{{\"input_ids\": [{}], \"labels\": [{}]}}\n", fmt::join(ids, ", "), fmt::join(labels, ", "));
    }
    return text;
}

float label_of(const Sample& sample) {
    const std::vector<int32_t>& tokens = sample.sequences[0].tokens;
    const auto begin = static_cast<size_t>(sample.sequences[0].learned[0].begin);
    return tokens[begin] == (7 * tokens[begin - 1] + 3) % chain_vocab ? 1 : -1;
}

/// Labels of all answers; both by default.
enum class Labels { both, desirable, undesirable };

/// What open_session() makes of rows with labels.
Session labelled_session(const std::string& config, std::vector<std::string> shared, std::vector<std::string> own,
                         Labels labels = Labels::both, const Ranks& ranks = one_rank()) {
    std::vector<std::string> of_texts = shared;
    of_texts.insert(of_texts.end(), {"stage=sft", "share_prefixes=false", "packing_length=128"});
    Session s = open_session(load_config(config, of_texts), ranks);
    own.insert(own.end(), shared.begin(), shared.end());
    own.insert(own.end(), {"stage=kto", "packing_length=128"});
    const LoadedConfig loaded = load_config(config, own);
    const DeviceChoice device = s.config.device;
    s.config = loaded.config;
    s.given = loaded.given;
    if (s.config.device == DeviceChoice::automatic) settle_device(s.config, s.device);
    EXPECT_EQ(s.config.device, device);
    for (StoreResult* split : {&s.train, &s.eval}) {
        std::vector<std::vector<Sample>> parts;
        for (int64_t i = 0; i < split->store.size(); ++i) {
            Sample sample = split->store.sample(i);
            const float label = labels == Labels::both ? label_of(sample) : labels == Labels::desirable ? 1 : -1;
            sample.sequences[0].advantage = label;
            parts.push_back({std::move(sample)});
        }
        split->store = split->store.divided(parts);
    }
    settle_labelled_answers(s);
    share_prefixes(s);
    return s;
}

class UnpairedRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        spill(path("train.jsonl"), answer_rows(120));
        write_config(
            "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nnum_train_epochs: 2\nlearning_rate: 0.01\n"
            "warmup_steps: 2\nlogging_steps: 1\nval_size: 20\neval_on_start: true\n");
    }
    std::string train(const std::string& run, std::vector<std::string> shared = {}, std::vector<std::string> own = {},
                      Labels labels = Labels::both) const {
        shared.push_back(output(run));
        return quietly([&] { Trainer(labelled_session(config(), shared, own, labels)).run(); });
    }
    void expect_close(const std::string& a, const std::string& b, double absolute = 2e-5) const {
        const std::vector<Json> x = read_log(path(a)), y = read_log(path(b));
        ASSERT_EQ(x.size(), y.size());
        ASSERT_GT(x.size(), 4u);
        for (size_t i = 0; i < x.size(); ++i)
            for (const auto& [key, value] : x[i].items()) {
                const double expected = value.get<double>();
                EXPECT_NEAR(y[i].at(key).get<double>(), expected, 2e-5 * std::abs(expected) + absolute)
                    << key << ", line " << i << ", " << b;
            }
    }
    int references() const {
        int count = 0;
        for (const auto& entry : fs::directory_iterator(path("prepared")))
            count += entry.path().filename().string().starts_with("reference-");
        return count;
    }
};

const std::vector<std::string> six_steps = {"max_steps=6", "num_train_epochs=0"};
std::vector<std::string> six_steps_and(std::vector<std::string> more) {
    more.insert(more.end(), six_steps.begin(), six_steps.end());
    return more;
}

TEST_F(UnpairedRun, LearnsLabelsAndLogsUnderTrlsNames) {
    const std::string printed = train("run");
    EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
    EXPECT_NE(printed.find("note: labels: "), std::string::npos) << printed;
    EXPECT_NE(printed.find("\nkl         each step first runs forward"), std::string::npos) << printed;
    const std::vector<Json> log = read_log(path("run"));
    const int64_t last = last_step(path("run"));
    EXPECT_NEAR(value_at(log, "loss", 1), 0.5, 1e-5);
    EXPECT_NEAR(value_at(log, "eval_loss", 0), 0.5, 1e-5);
    EXPECT_LT(value_at(log, "eval_loss", last), 0.47);
    EXPECT_GT(value_at(log, "eval_rewards/margins", last), 0.1);
    double largest = 0;
    for (int64_t step = 1; step <= last; ++step) {
        EXPECT_GE(value_at(log, "kl", step), 0);
        largest = std::max(largest, value_at(log, "kl", step));
    }
    EXPECT_GT(largest, 0.01);
    for (const std::string prefix : {"", "eval_"}) {
        const auto value = [&](const char* key) { return value_at(log, prefix + key, last); };
        EXPECT_NEAR(value("rewards/margins"), value("rewards/chosen") - value("rewards/rejected"), 1e-12);
        EXPECT_LT(value("logps/chosen"), 0);
        EXPECT_LT(value("logps/rejected"), 0);
    }
}

TEST_F(UnpairedRun, ApoComparesWithNoMismatchedAnswers) {
    const std::string printed = train("run", {}, {"loss_type=apo_zero_unpaired", "desirable_weight=1.2"});
    EXPECT_EQ(printed.find("\nkl "), std::string::npos) << printed;
    const std::vector<Json> log = read_log(path("run"));
    EXPECT_FALSE(log.back().contains("eval_kl"));
    EXPECT_LT(value_at(log, "eval_loss", last_step(path("run"))), 0.5);
}

TEST_F(UnpairedRun, OneLabelIsEnough) {
    for (const Labels labels : {Labels::desirable, Labels::undesirable}) {
        const bool good = labels == Labels::desirable;
        const std::string name = good ? "good" : "bad";
        train(name, six_steps, {}, labels);
        const std::vector<Json> log = read_log(path(name));
        EXPECT_EQ(log.back().contains("eval_rewards/chosen"), good);
        EXPECT_EQ(log.back().contains("eval_rewards/rejected"), !good);
        EXPECT_FALSE(log.back().contains("eval_rewards/margins"));
        EXPECT_NE(value_at(log, "loss", 6), value_at(log, "loss", 1));
    }
}

TEST_F(UnpairedRun, ResumesToTheBit) {
    const std::vector<std::string> often = {"save_steps=1", "save_total_limit=0", "eval_steps=4"};
    train("unbroken", often);
    const RunResult unbroken = result_of(path("unbroken"));
    const int64_t last = last_step(path("unbroken"));
    ASSERT_GE(last, 8);
    for (const int64_t stop : {int64_t{1}, last / 2, last - 1}) {
        const std::string name = fmt::format("from-{}", stop);
        fs::create_directories(path(name));
        fs::copy(checkpoint_folder(path("unbroken"), stop), checkpoint_folder(path(name), stop));
        fs::copy(path("unbroken") + "/metrics.jsonl", path(name) + "/metrics.jsonl");
        std::vector<std::string> resuming = often;
        resuming.push_back("resume_from_checkpoint=auto");
        train(name, resuming);
        expect_equal(result_of(path(name)), unbroken, name);
    }
    EXPECT_EQ(references(), 2) << "one for each split";
}

TEST_F(UnpairedRun, MicroStepsEqualABatch) {
    train("4x1", six_steps_and({"per_device_train_batch_size=4", "gradient_accumulation_steps=1"}));
    train("1x4", six_steps_and({"per_device_train_batch_size=1", "gradient_accumulation_steps=4"}));
    expect_close("4x1", "1x4");
    EXPECT_GT(value_at(read_log(path("4x1")), "kl", 6), 0.01);
}

/// One step learns the whole data set, so that packs decide nothing else.
TEST_F(UnpairedRun, SharedPrefixesChangeNothing) {
    const std::vector<std::string> whole = {"max_steps=5", "num_train_epochs=0", "gradient_accumulation_steps=32"};
    train("apart", whole, {"share_prefixes=false"});
    const std::string printed = train("shared", whole, {"share_prefixes=true"});
    EXPECT_NE(printed.find("\nprefixes "), std::string::npos) << printed;
    expect_close("apart", "shared");
}

TEST_F(UnpairedRun, EvaluationDoesNotDependOnPacking) {
    train("other", {"max_steps=20", "num_train_epochs=0"});
    std::vector<double> losses, drifts;
    for (const char* way : {"eval_packing=true", "eval_packing=false", "per_device_eval_batch_size=5"}) {
        const std::string name = fmt::format("eval-{}", losses.size());
        train(name, {"max_steps=2", "num_train_epochs=0", way}, {"ref_model=" + path("other")});
        losses.push_back(value_at(read_log(path(name)), "eval_loss", 0));
        drifts.push_back(value_at(read_log(path(name)), "eval_kl", 0));
        EXPECT_NEAR(losses.back(), losses[0], 1e-5 * losses[0]) << way;
        EXPECT_NEAR(drifts.back(), drifts[0], 1e-5 * drifts[0] + 1e-5) << way;
    }
}

TEST_F(UnpairedRun, TheBaseMayBeTheReference) {
    train("base", six_steps);
    for (const std::string once : {"true", "false"}) {
        write_tuning("finetuning_type: lora\nlora_rank: 4\ngradient_accumulation_steps: 2\n");
        train("lora-" + once, {}, {"precompute_ref_log_probs=" + once});
    }
    expect_close("lora-true", "lora-false");
}

TEST_F(UnpairedRun, OnePromptIsRefusedInTrainingAndToldInEvaluation) {
    std::string rows = answer_rows(120);
    const std::string evaluation = rows.substr(0, rows.find('\n') + 1);
    spill(path("eval.jsonl"), evaluation);
    const std::vector<std::string> with =
        six_steps_and({"val_size=0", "eval_datasets=[{path: " + path("eval.jsonl") + "}]"});
    const std::string printed = train("run", with);
    EXPECT_NE(printed.find("all 1 evaluation samples have the same prompt"), std::string::npos) << printed;
    EXPECT_EQ(value_at(read_log(path("run")), "eval_kl", 6), 0);
    spill(path("train.jsonl"), evaluation + evaluation);
    expect_error(Exit::data, "all 2 training samples have the same prompt; use loss_type: apo_zero_unpaired",
                 [&] { train("no", with); });
    train("apo", with, {"loss_type=apo_zero_unpaired"});
}

TEST_F(UnpairedRun, SamplesWithoutALabelAreRefused) {
    Session s = labelled_session(config(), {output("run")}, {});
    s.train.mismatched = {};
    std::vector<std::vector<Sample>> parts(static_cast<size_t>(s.train.store.size()));
    parts[3] = {s.train.store.sample(3)};
    parts[3][0].sequences[0].advantage = 0;
    s.train.store = s.train.store.divided(parts);
    expect_error(Exit::data, "stage kto needs a label for the answer", [&] { settle_labelled_answers(s); });
    parts[3][0].sequences.push_back(parts[3][0].sequences[0]);
    s.train.store = s.train.store.divided(parts);
    expect_error(Exit::data, "stage kto needs rows of one answer with a label, found 2",
                 [&] { settle_labelled_answers(s); });
}

// --- Ranks ---

constexpr const char* folder_variable = "COLONNADE_UNPAIRED_RUN";

TEST(DISABLED_EveryRank, TrainsOnLabels) {
    Ranks ranks({.program = "unpaired_run_test"});
    const std::string folder = std::getenv(folder_variable);
    for (const char* zero : {"0", "1"}) {
        const std::vector<std::string> arguments = six_steps_and(
            {fmt::format("output_dir={}/ranks-{}", folder, zero), fmt::format("zero_stage={}", zero),
             "per_device_train_batch_size=1", fmt::format("gradient_accumulation_steps={}", 4 / ranks.size())});
        quietly([&] {
            Trainer(labelled_session(folder + "/config.yaml", arguments, {}, Labels::both, ranks), ranks).run();
        });
    }
}

TEST_F(UnpairedRun, RanksLearnWhatOneRankLearns) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    hide_scarce_gpus(4);
    setenv(folder_variable, path("").c_str(), 1);
    const Program::Result result = run_on_ranks(2, "DISABLED_EveryRank.TrainsOnLabels");
    ASSERT_EQ(result.exit, 0) << result.out << result.err;
    EXPECT_EQ(count_of(result.out, "[  PASSED  ] 1 test"), 2) << result.out;
    train("one", six_steps_and({"per_device_train_batch_size=1", "gradient_accumulation_steps=4"}));
    expect_close("one", "ranks-0");
    expect_equal(result_of(path("ranks-1")), result_of(path("ranks-0")), "sharded state");
}

// --- GPU ---

class UnpairedGpuRun : public GpuRunTest {};

TEST_F(UnpairedGpuRun, StepsAndResumingGiveTheSameBits) {
    spill(path("train.jsonl"), answer_rows(400));
    write_gpu_config({4, 2, 64}, 128,
                     "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nmax_steps: 20\n"
                     "learning_rate: 0.001\nsave_steps: 5\nsave_total_limit: 0\nval_size: 50\neval_steps: 5\n"
                     "logging_steps: 1\n");
    const auto train = [&](const std::string& run, std::vector<std::string> shared = {}) {
        shared.push_back(output(run));
        quietly([&] { Trainer(labelled_session(config(), shared, {})).run(); });
    };
    train("first");
    train("second");
    const RunResult first = result_of(path("first"));
    expect_equal(result_of(path("second")), first, "a second run");
    EXPECT_NEAR(value_at(first.log, "loss", 1), 0.5, 0.02);
    EXPECT_LT(value_at(first.log, "eval_loss", 20), 0.48);
    fs::create_directories(path("resumed"));
    fs::copy(checkpoint_folder(path("first"), 10), checkpoint_folder(path("resumed"), 10), fs::copy_options::recursive);
    fs::copy(path("first") + "/metrics.jsonl", path("resumed") + "/metrics.jsonl");
    train("resumed", {"resume_from_checkpoint=auto"});
    expect_equal(result_of(path("resumed")), first, "resumed");
}

}  // namespace
}  // namespace colonnade
