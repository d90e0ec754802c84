// Runs with fit: auto and with memory keys: what they choose, say, record and keep when they resume.

#include "engine/device/human_units.h"
#include "tests/support/tiny_run.h"
#include "train/run/learner_options.h"
#include "train/run/session_fit.h"

namespace colonnade {
namespace {

/// On the CPU, whose plan host_memory bounds.
class FitRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config("per_device_train_batch_size: 4\nmax_steps: 4\nlearning_rate: 0.01\nlogging_steps: 1\n");
    }
    std::vector<std::string> with(std::vector<std::string> more) const {
        more.insert(more.begin(), {output("run"), "device=cpu"});
        return more;
    }
    Session session(const std::vector<std::string>& arguments, SessionUse use = SessionUse::run) const {
        Session session;
        quietly([&] { session = open_session(load_config(config(), with(arguments)), one_rank(), use); });
        return session;
    }
    std::string plan(const std::vector<std::string>& arguments) const {
        std::string text;
        quietly([&] {
            text = Trainer(open_session(load_config(config(), with(arguments)), one_rank(), SessionUse::plan)).plan();
        });
        return text;
    }
    static size_t bytes_of(const Session& s) { return memory_need(fit_subject(s, one_rank()), s.config).device; }
    static std::string memory(size_t bytes) { return fmt::format("host_memory={}B", bytes); }
};

TEST_F(FitRun, UsesAndRecordsWhatFits) {
    const size_t whole = bytes_of(session({}));
    const Session as_it_is = session({"fit=auto", memory(whole)});
    ASSERT_TRUE(as_it_is.fit);
    EXPECT_TRUE(as_it_is.fit->settings.empty());
    const size_t room = whole * 2 / 3;
    const Session fitted = session({"fit=auto", memory(room)});
    EXPECT_LE(bytes_of(fitted), room);
    EXPECT_FALSE(fitted.fit->settings.empty());
    EXPECT_EQ(fitted.config.per_device_train_batch_size * fitted.config.gradient_accumulation_steps, 4);

    const std::string printed = train(config(), with({"fit=auto", memory(room)}));
    const Config recorded = load_config(path("run/config.yaml")).config;
    EXPECT_EQ(resolved_yaml(recorded), resolved_yaml(fitted.config));
    for (const std::string& setting : fitted.fit->settings) {
        if (setting.starts_with("per_device_eval")) continue;
        std::string as_yaml = setting;
        as_yaml.replace(as_yaml.find('='), 1, ": ");
        const size_t line = printed.find("\nfit        ");
        ASSERT_NE(line, std::string::npos) << printed;
        EXPECT_NE(printed.find(as_yaml, line), std::string::npos) << printed;
        EXPECT_LT(line, printed.find("step 1/4")) << printed;
    }
    // The same packs in every step: the loss is that of the run with all memory, but for rounding.
    train(config(), {output("all")});
    const std::vector<Json> losses = read_log(path("run")), others = read_log(path("all"));
    for (const int64_t step : {1, 4}) EXPECT_NEAR(value_at(losses, "loss", step), value_at(others, "loss", step), 1e-5);
}

TEST_F(FitRun, AResumedRunKeepsItsSettingsIfTheyFit) {
    const size_t whole = bytes_of(session({})), room = whole / 2;
    const std::vector<std::string> all = {"fit=auto", memory(room), "save_steps=2"};
    train(config(), with(all));
    const RunResult unbroken = result_of(path("run"));
    const Config first = load_config(path("run/config.yaml")).config;
    ASSERT_GT(first.gradient_accumulation_steps, 1);
    for (const char* left : {"/checkpoint-4", "/model.safetensors", "/config.json"})
        std::filesystem::remove_all(path("run") + left);
    const std::vector<std::string> more = {"fit=auto", memory(2 * whole), "save_steps=2",
                                           "resume_from_checkpoint=auto"};
    const Session resumed = session(more);
    EXPECT_TRUE(resumed.fit->resumed);
    EXPECT_EQ(resumed.config.gradient_accumulation_steps, first.gradient_accumulation_steps);
    EXPECT_EQ(resumed.config.gradient_checkpointing, first.gradient_checkpointing);
    const std::string printed = train(config(), with(more));
    EXPECT_EQ(printed.find("note: the config changed"), std::string::npos) << printed;
    expect_equal(result_of(path("run")), unbroken, "resumed with more memory");
    // Less memory than that needs new ones; what is given counts more than what was.
    std::filesystem::remove_all(path("run/checkpoint-4"));
    const Session less = session({"fit=auto", memory(bytes_of(resumed) - 1), "resume_from_checkpoint=auto"});
    EXPECT_FALSE(less.fit->resumed);
    EXPECT_LT(bytes_of(less), bytes_of(resumed));
    EXPECT_EQ(session({"fit=auto", "gradient_accumulation_steps=1", "resume_from_checkpoint=auto"})
                  .config.gradient_accumulation_steps,
              1);
}

TEST_F(FitRun, ARunAboveItsMemoryIsAnErrorWithAdvice) {
    const Session run = session({});
    const size_t whole = bytes_of(run);
    const Program::Result refused = Program("train", {config(), output("run"), memory(whole * 2 / 3)}).wait();
    EXPECT_EQ(refused.exit, static_cast<int>(Exit::memory)) << refused.err;
    EXPECT_NE(refused.err.find(fmt::format("but host_memory {} leaves it ", exact_bytes(whole * 2 / 3))),
              std::string::npos)
        << refused.err;
    EXPECT_NE(refused.err.find("this fits: "), std::string::npos) << refused.err;
    const Program::Result tiny = Program("train", {config(), output("run"), "fit=auto", memory(1000)}).wait();
    EXPECT_EQ(tiny.exit, static_cast<int>(Exit::memory)) << tiny.err;
    EXPECT_NE(tiny.err.find("no settings make it fit; "), std::string::npos) << tiny.err;
}

TEST_F(FitRun, PlansAnswerForAnyGpu) {
    const std::vector<std::string> gpu = {"device=cuda", "model.head_dim=64", "model.num_hidden_layers=8",
                                          "model.hidden_size=256", "packing_length=4096"};
    const auto plan_with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), gpu.begin(), gpu.end());
        return plan(more);
    };
    const auto line_of = [](const std::string& text, const std::string& label) {
        const size_t begin = text.find("\n" + label + " ");
        return begin == text.npos ? "" : text.substr(begin + 1, text.find('\n', begin + 1) - begin - 1);
    };
    const auto holds = [](const std::string& text, const std::string& part) { return text.find(part) != text.npos; };
    const std::string plain = plan_with({});
    EXPECT_EQ(line_of(plain, "fit"), "");
    EXPECT_TRUE(holds(line_of(plain, "step time"), "ms predicted ")) << plain;
    EXPECT_EQ(line_of(plan({"device=cpu"}), "step time"), "");
    const std::string large = plan_with({"fit=auto", "gpu_memory=80GiB"});
    EXPECT_TRUE(holds(line_of(large, "fit"), "fits as it is: ")) << large;
    EXPECT_TRUE(holds(line_of(large, "fit"), " of 79.0 GiB")) << large;
    const std::string small = plan_with({"fit=auto", "gpu_memory=1100MiB", "host_memory=1GiB"});
    EXPECT_TRUE(holds(line_of(small, "fit"), "per_device_train_batch_size: 1, gradient_accumulation_steps: 4"))
        << small;
    EXPECT_TRUE(holds(line_of(small, "fit"), " of 76.0 MiB")) << small;
    EXPECT_FALSE(holds(line_of(small, "fit"), "per_device_eval")) << small;
    const std::string none = plan_with({"gpu_memory=1100MiB"});
    EXPECT_TRUE(holds(line_of(none, "fit"), "DOES NOT FIT: ")) << none;
    const std::string never = plan_with({"fit=auto", "gpu_memory=1025MiB"});
    EXPECT_TRUE(holds(line_of(never, "fit"), "DOES NOT FIT: ")) << never;
    EXPECT_TRUE(holds(line_of(never, "fit"), "need the least")) << never;
    if (!has_gpu(0)) {
        const std::string unknown = plan_with({"fit=auto"});
        EXPECT_TRUE(holds(line_of(unknown, "fit"), "set gpu_memory")) << unknown;
        EXPECT_TRUE(holds(line_of(plain, "step time"), "at the rates of an NVIDIA H200")) << plain;
    }
    EXPECT_TRUE(holds(plan({"device=cpu", "gpu_memory=8GiB"}), "gpu_memory has no effect on the CPU"));
}

}  // namespace
}  // namespace colonnade
