// The trainer's watch over its numbers: what it says about those that are not finite, and what it does about spikes.
// Every fault here comes from weights or data, as in real runs.

#include "engine/io/hdf5.h"
#include "engine/io/safetensors.h"
#include "tests/support/expect_error.h"
#include "tests/support/mpirun.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

std::string token_row(const std::vector<int64_t>& ids) {
    return fmt::format("{{\"input_ids\": [{0}], \"labels\": [{0}]}}\n", fmt::join(ids, ", "));
}

// --- Not finite ------------------------------------------------------------------------------------------------------

/// A run that starts from a model whose weights have been tampered with.
class NotFinite : public RunTest {
  protected:
    static constexpr int64_t width = 16, bad_row = 6, bad_token = 30;

    void SetUp() override {
        RunTest::SetUp();
        write_config("max_steps: 1\nsave_strategy: no\n");
        train(config(), {output("base")});
        // Rows of the tokens 0 to 9, and one row that begins with another token.
        std::string rows;
        for (int64_t row = 1; row <= 96; ++row) {
            std::vector<int64_t> ids;
            for (int64_t i = 0; i < 8 + row % 5; ++i) ids.push_back((3 * i + row) % 10);
            if (row == bad_row) ids[0] = bad_token;
            rows += token_row(ids);
        }
        spill(path("train.jsonl"), rows);
        write_config(
            "num_train_epochs: 1\nsave_steps: 1\nsave_total_limit: 0\nlogging_steps: 1\nlearning_rate: 1e-300\n"
            "gradient_accumulation_steps: 2\n",
            "tuning.yaml");
        std::string yaml = slurp(path("tuning.yaml"));
        yaml.replace(0, yaml.find("datasets:"), "model_name_or_path: " + path("base") + "\n");
        spill(path("tuning.yaml"), yaml);
    }
    /// Sets element `at` of a weight of the base model; at < 0: counted from the end.
    void set_weight(const std::string& name, int64_t at, float value) const {
        const std::string file = path("base/model.safetensors");
        std::string bytes = slurp(file);
        const TensorInfo tensor = *SafetensorsReader(file).find(name);
        bytes.replace(tensor.begin + static_cast<size_t>(at) * sizeof value, sizeof value,
                      reinterpret_cast<const char*>(&value), sizeof value);
        spill(file, bytes);
    }
    std::string run(const std::vector<std::string>& settings = {}) const {
        std::vector<std::string> all = {output("run")};
        all.insert(all.end(), settings.begin(), settings.end());
        std::string message;
        try {
            train(path("tuning.yaml"), all);
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::numerics);
            message = e.what();
        }
        EXPECT_FALSE(fs::exists(path("run/model.safetensors")));
        return message;
    }
    /// Steps whose checkpoints exist, after a run that ended at the step that the message names.
    void expect_saved_before(const std::string& message) const {
        const int64_t step = std::stoll(message.substr(message.find("of step ") + 8));
        EXPECT_GT(step, 1) << "choose data with good steps before";
        const auto saved = checkpoint_steps(path("run"));
        EXPECT_EQ(std::ssize(saved), step - 1) << message;
    }
    /// Queries and keys of the bad token overflow: its row's loss is NaN, that of all others is usual.
    void overflow_forward() const {
        for (int64_t token = 0; token < chain_vocab; ++token)
            set_weight("model.embed_tokens.weight", token * width + 3, token == bad_token ? 1 : 0);
        set_weight("model.layers.0.input_layernorm.weight", 3, 1e30f);
    }
    /// The bad token's embedding is 0: its loss is usual, but each RMSNorm multiplies its gradient by 1 / sqrt(eps).
    void overflow_backward() const {
        for (int64_t i = 0; i < width; ++i) set_weight("model.embed_tokens.weight", bad_token * width + i, 0);
        Json model = read_json_file(path("base/config.json"));
        model["rms_norm_eps"] = 1e-36;
        spill(path("base/config.json"), model.dump());
    }
    std::string bad_place() const { return fmt::format("{}:{}", path("train.jsonl"), bad_row); }
};

TEST_F(NotFinite, WeightsAreNamed) {
    set_weight("model.norm.weight", 2, std::nanf(""));
    EXPECT_EQ(run(),
              "the loss of step 1 is not finite; the weights are those of step 0; not finite first: the weights of "
              "model.norm.weight");
    EXPECT_TRUE(checkpoint_steps(path("run")).empty());
}

TEST_F(NotFinite, TheLossIsNamedWithItsRowAlone) {
    overflow_forward();
    const std::string message = run();
    EXPECT_NE(message.find("the loss of step"), std::string::npos) << message;
    EXPECT_NE(message.find("not finite first: the loss of micro-step "), std::string::npos) << message;
    EXPECT_TRUE(message.ends_with(", rows " + bad_place())) << message;
    expect_saved_before(message);
}

TEST_F(NotFinite, TheGradientIsNamedWithItsRowAlone) {
    overflow_backward();
    const std::string message = run();
    EXPECT_NE(message.find("the gradient norm of step"), std::string::npos) << message;
    EXPECT_NE(message.find("not finite first: the gradient of model.embed_tokens.weight of micro-step "),
              std::string::npos)
        << message;
    EXPECT_TRUE(message.ends_with(", rows " + bad_place())) << message;
    expect_saved_before(message);
}

TEST_F(NotFinite, WithoutTheBadRowTheRunEnds) {
    overflow_forward();
    std::string rows = slurp(path("train.jsonl"));
    const size_t bad = rows.find("[30, ");
    rows.replace(bad, 3, "[0");
    rows.replace(rows.find("[30, "), 3, "[0");
    spill(path("train.jsonl"), rows);
    train(path("tuning.yaml"), {output("run")});
    EXPECT_TRUE(fs::exists(path("run/model.safetensors")));
}

TEST_F(NotFinite, RanksSayItOnceAndNameTheRank) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    hide_scarce_gpus(3);
    overflow_forward();
    for (const char* zero_stage : {"zero_stage=0", "zero_stage=1"}) {
        const std::vector<std::string> arguments =
            on_ranks(3, "train", {path("tuning.yaml"), output(std::string("run-") + zero_stage), zero_stage});
        const Program::Result result = Program(mpirun(), arguments, allow_ranks).wait();
        EXPECT_EQ(result.exit, static_cast<int>(Exit::numerics)) << result.err;
        EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
        EXPECT_NE(result.err.find("not finite first: the loss of micro-step "), std::string::npos) << result.err;
        EXPECT_NE(result.err.find(" on rank "), std::string::npos) << result.err;
        EXPECT_NE(result.err.find(", rows " + bad_place() + "\n"), std::string::npos) << result.err;
    }
}

// --- Spikes ----------------------------------------------------------------------------------------------------------

/// One row of 160 follows another chain: once the others are learned, its steps are spikes.
class Spikes : public RunTest {
  protected:
    static constexpr int64_t bad_row = 78;

    void SetUp() override {
        RunTest::SetUp();
        std::string rows = chain_rows(160);
        std::vector<int64_t> ids;
        for (int64_t i = 0, id = 5; i < 44; ++i, id = (5 * id + 11) % chain_vocab) ids.push_back(id);
        size_t begin = 0;
        for (int64_t row = 1; row < bad_row; ++row) begin = rows.find('\n', begin) + 1;
        rows.replace(begin, rows.find('\n', begin) + 1 - begin, token_row(ids));
        spill(path("train.jsonl"), rows);
        write_config(
            "learning_rate: 0.01\nnum_train_epochs: 4\nper_device_train_batch_size: 2\nlogging_steps: 1\n"
            "save_steps: 1\nsave_total_limit: 0\n");
    }
    /// Lines of the log about spikes.
    std::vector<Json> spikes(const std::string& run) const {
        std::vector<Json> found;
        for (const Json& line : read_log(path(run)))
            if (line.contains("spike_loss")) found.push_back(line);
        return found;
    }
    std::string state_at(const std::string& run, int64_t step) const {
        return slurp(checkpoint_folder(path(run), step) + "/state-00001-of-00001.h5");
    }
    std::string weights_at(const std::string& run, int64_t step) const {
        const Hdf5Reader state(checkpoint_folder(path(run), step) + "/state-00001-of-00001.h5");
        std::vector<float> weights(static_cast<size_t>(state.count("weights")));
        state.read("weights", Tensor(weights.data(), DType::f32, {std::ssize(weights)}), 0);
        return {reinterpret_cast<const char*>(weights.data()), weights.size() * sizeof(float)};
    }
    std::string bad_place() const { return fmt::format("{}:{}", path("train.jsonl"), bad_row); }
};

TEST_F(Spikes, AWarningNamesStepAndRowsAndChangesNothing) {
    const std::string printed = train(config(), {output("warn"), "save_steps=0", "save_strategy=epoch"}),
                      silent =
                          train(config(), {output("off"), "loss_spike=off", "save_steps=0", "save_strategy=epoch"});
    const std::vector<Json> found = spikes("warn");
    ASSERT_GE(found.size(), 1u);
    for (const Json& spike : found) {
        const auto rows = spike.at("rows").get<std::vector<std::string>>();
        EXPECT_EQ(std::count(rows.begin(), rows.end(), bad_place()), 1) << spike;
        EXPECT_GT(spike.at("spike_grad_norm").get<double>(), 0);
        EXPECT_EQ(spike.at("skipped_steps"), 0);
        EXPECT_NE(printed.find(fmt::format("warning: step {}: loss ", spike.at("step").get<int64_t>())),
                  std::string::npos);
    }
    EXPECT_EQ(count_of(printed, "is a spike (loss_spike_z 6); rows "), std::ssize(found)) << printed;
    EXPECT_EQ(count_of(silent, "spike ("), 0);
    EXPECT_TRUE(spikes("off").empty());
    EXPECT_TRUE(result_of(path("off")).state == result_of(path("warn")).state);
    EXPECT_TRUE(result_of(path("off")).model == result_of(path("warn")).model);
}

TEST_F(Spikes, SkippedStepsLeaveTheWeightsAndResumeGivesTheSameBits) {
    const std::string printed = train(config(), {output("skip"), "loss_spike=skip"});
    const RunResult unbroken = result_of(path("skip"));
    const std::vector<Json> found = spikes("skip");
    ASSERT_GE(found.size(), 1u);
    int64_t skipped = 0;
    for (const Json& spike : found) {
        const auto step = spike.at("step").get<int64_t>();
        EXPECT_TRUE(weights_at("skip", step) == weights_at("skip", step - 1)) << step;
        EXPECT_FALSE(weights_at("skip", step + 1) == weights_at("skip", step)) << step;
        EXPECT_EQ(spike.at("skipped_steps"), ++skipped);
    }
    EXPECT_NE(printed.find(fmt::format("{} of {} steps were left out as spikes", skipped,
                                       checkpoint_steps(path("skip")).back())),
              std::string::npos);
    const auto first = found[0].at("step").get<int64_t>();
    for (const int64_t stop : {first - 30, first - 2, first - 1, first, first + 1}) {
        const std::string name = fmt::format("stopped-{}", stop);
        fs::create_directories(path(name));
        fs::copy(checkpoint_folder(path("skip"), stop), checkpoint_folder(path(name), stop),
                 fs::copy_options::recursive);
        fs::copy(path("skip") + "/metrics.jsonl", path(name) + "/metrics.jsonl");
        train(config(),
              {output(name), "loss_spike=skip", "resume_from_checkpoint=auto", "save_steps=0", "save_strategy=epoch"});
        EXPECT_TRUE(result_of(path(name)).state == unbroken.state) << name;
        EXPECT_TRUE(result_of(path(name)).model == unbroken.model) << name;
        EXPECT_EQ(result_of(path(name)).log, unbroken.log) << name;
    }
}

TEST_F(Spikes, StopSavesTheStateBeforeAndASkipGoesOn) {
    train(config(), {output("skip"), "loss_spike=skip"});
    const auto first = spikes("skip").at(0).at("step").get<int64_t>();
    const std::vector<std::string> settings = {output("stop"), "loss_spike=stop", "save_steps=0",
                                               "save_strategy=epoch"};
    expect_error(
        Exit::numerics,
        fmt::format("{} has the state before it: look at its rows (", checkpoint_folder(path("stop"), first - 1)),
        [&] { train(config(), settings); });
    EXPECT_EQ(checkpoint_steps(path("stop")).back(), first - 1);
    EXPECT_TRUE(state_at("stop", first - 1) == state_at("skip", first - 1));
    EXPECT_FALSE(fs::exists(path("stop/model.safetensors")));
    train(config(), {output("stop"), "loss_spike=skip", "resume_from_checkpoint=auto"});
    EXPECT_TRUE(result_of(path("stop")).state == result_of(path("skip")).state);
    EXPECT_EQ(result_of(path("stop")).log, result_of(path("skip")).log);
}

/// The save of the state before a spike may be under way, or done, when the spike is found.
TEST_F(Spikes, StopDoesNotSaveTwice) {
    const std::string error = "has the state before it";
    expect_error(Exit::numerics, error, [&] { train(config(), {output("run"), "loss_spike=stop"}); });
    const int64_t before = checkpoint_steps(path("run")).back();
    expect_error(Exit::numerics, error, [&] {
        train(config(), {output("run"), "loss_spike=stop", "resume_from_checkpoint=auto"});
    });
    EXPECT_EQ(checkpoint_steps(path("run")).back(), before);
}

TEST_F(Spikes, RanksSkipTogether) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    hide_scarce_gpus(2);
    const auto on_two = [&](const std::string& name, const std::string& setting, const std::string& policy) {
        std::vector<std::string> arguments =
            on_ranks(2, "train",
                     {config(), output(name), setting, policy, "per_device_train_batch_size=1", "save_steps=0",
                      "save_strategy=epoch", "param_checksum_steps=1"});
        return Program(mpirun(), arguments, allow_ranks).wait();
    };
    const Program::Result whole = on_two("whole", "zero_stage=0", "loss_spike=skip");
    const Program::Result sharded = on_two("sharded", "zero_stage=1", "loss_spike=skip");
    EXPECT_EQ(whole.exit, 0) << whole.err;
    EXPECT_EQ(sharded.exit, 0) << sharded.err;
    ASSERT_GE(spikes("whole").size(), 1u) << whole.err;
    const auto rows = spikes("whole").at(0).at("rows").get<std::vector<std::string>>();
    EXPECT_EQ(std::count(rows.begin(), rows.end(), bad_place()), 1);
    EXPECT_GT(rows.size(), 2u) << "of both ranks";
    EXPECT_TRUE(result_of(path("sharded")).state == result_of(path("whole")).state);
    EXPECT_EQ(spikes("sharded"), spikes("whole"));
    const Program::Result stop = on_two("stop", "zero_stage=1", "loss_spike=stop");
    EXPECT_EQ(stop.exit, static_cast<int>(Exit::numerics)) << stop.err;
    EXPECT_EQ(count_of(stop.err, "error: "), 1) << stop.err;
    EXPECT_EQ(checkpoint_steps(path("stop")).back(), spikes("whole").at(0).at("step").get<int64_t>() - 1);
}

}  // namespace
}  // namespace colonnade
