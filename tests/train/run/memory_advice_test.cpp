// Settings that a run without enough memory is advised to make: its plan then fits, and each of them is needed.

#include "train/run/memory_advice.h"

#include "tests/support/tiny_run.h"
#include "train/run/learner_options.h"
#include "train/run/session_fit.h"

namespace colonnade {
namespace {

class Advice : public RunTest {
  protected:
    Session session(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), {output("run"), "device=cpu", "per_device_train_batch_size=4",
                                             "gradient_accumulation_steps=2", "packing_length=256"});
        Session session;
        quietly([&] { session = open_session(load_config(config(), arguments)); });
        return session;
    }
    static MemoryAdvice advise(const Session& s, size_t available) {
        return advise_on_memory(s.config, fit_subject(s, one_rank()), {.device = available, .host = size_t{1} << 50});
    }
    static size_t bytes_of_run(const Session& s) {
        return Learner::plan(s.model, learner_options(s.config, one_rank()), s.device).bytes();
    }
};

TEST_F(Advice, MakesTheRunFitWithNoSettingTooMany) {
    const Session run = session({});
    const size_t full = bytes_of_run(run);
    EXPECT_TRUE(advise(run, full).settings.empty());
    size_t answers = 0;
    for (size_t available = full - 1; available > 0; available -= std::min(available, full / 50)) {
        const MemoryAdvice advice = advise(run, available);
        EXPECT_EQ(bytes_of_run(session(advice.settings)), advice.need.device) << text_of(advice);
        if (!advice.fits) {
            EXPECT_GT(advice.need.device, available);
            EXPECT_NE(text_of(advice).find("no settings make it fit; "), std::string::npos) << text_of(advice);
            continue;
        }
        ++answers;
        ASSERT_FALSE(advice.settings.empty());
        EXPECT_LE(advice.need.device, available);
        for (size_t left_out = 0; left_out < advice.settings.size(); ++left_out) {
            std::vector<std::string> fewer = advice.settings;
            fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(left_out));
            // More micro-steps make up for fewer packs in each, so that a step has as many as before; evaluation takes
            // as many as training unless it is told otherwise.
            const std::string& key = advice.settings[left_out];
            if (key.starts_with("gradient_accumulation_steps") || key.starts_with("per_device_eval")) continue;
            EXPECT_GT(bytes_of_run(session(fewer)), available) << text_of(advice) << " without " << left_out;
        }
    }
    EXPECT_GE(answers, 10u);
}

// A GPU has the memory of its host beside its own.
TEST_F(Advice, OffloadsInputsOfBlocksOnAGpu) {
    Session run;
    quietly([&] {
        run = open_session(
            load_config(config(), {output("run"), "device=cuda", "gradient_checkpointing=block",
                                   "per_device_train_batch_size=1", "packing_length=1024", "model.num_hidden_layers=8",
                                   "model.head_dim=64", "head_chunk=256", "optim=muon"}),
            one_rank(), SessionUse::plan);
    });
    const auto bytes = [&](bool offloaded) {
        run.config.offload_activations.count = offloaded ? BlockCount::all : 0;
        return Learner::plan(run.model, learner_options(run.config, one_rank()), run.device).bytes();
    };
    const size_t least = bytes(true), all = bytes(false);
    ASSERT_LT(least, all);
    const MemoryAdvice advice = advise(run, least);
    EXPECT_TRUE(advice.fits);
    EXPECT_EQ(advice.need.device, least);
    EXPECT_EQ(advice.settings, std::vector<std::string>{"offload_activations=true"});
    EXPECT_TRUE(advise(run, all).settings.empty());
}

TEST_F(Advice, PlansShowWhatIsOffloaded) {
    const auto plan = [&](const std::string& device, const std::string& offload) {
        const Program::Result result =
            Program("train", {config(), output("run"), "device=" + device, "packing_length=1024",
                              "model.num_hidden_layers=8", "model.head_dim=64", "offload_activations=" + offload,
                              "offload_weights=" + offload, "offload_optimizer=" + offload, "--plan"})
                .wait();
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out;
    };
    const std::string on = plan("cuda", "true"), off = plan("cuda", "false"), cpu = plan("cpu", "true");
    for (const std::string bytes : {"  activations (host) ", "  weights (host) ", "  gradients (host) ",
                                    "  optimizer (host) ", "  low halves of weights (host) "}) {
        EXPECT_NE(on.find(bytes), std::string::npos) << on;
        EXPECT_EQ(off.find(bytes), std::string::npos) << off;
        EXPECT_EQ(cpu.find(bytes), std::string::npos) << cpu;
    }
    for (const std::string key : {"offload_activations", "offload_weights", "offload_optimizer"}) {
        const std::string none = key + " has no effect on the CPU";
        EXPECT_NE(cpu.find(none), std::string::npos) << cpu;
        EXPECT_EQ(on.find(none), std::string::npos) << on;
    }
}

TEST_F(Advice, KeepsThePacksOfAStep) {
    const Session run = session({"gradient_checkpointing=block"});
    const MemoryAdvice advice = advise(run, bytes_of_run(run) / 2);
    EXPECT_EQ(advice.settings,
              (std::vector<std::string>{"per_device_train_batch_size=1", "per_device_eval_batch_size=1",
                                        "gradient_accumulation_steps=8"}));
    EXPECT_NE(text_of(advice).find("this fits: per_device_train_batch_size=1 per_device_eval_batch_size=1 "),
              std::string::npos)
        << text_of(advice);
}

// What changes results comes last: every setting that does not is there, too, or spared by it.
TEST_F(Advice, ChangesResultsOnlyIfNothingElseFits) {
    const Session run = session({"packing_length=48"});
    size_t least = bytes_of_run(run);
    for (; advise(run, least).fits; least -= std::min(least, bytes_of_run(run) / 100)) {
        const std::vector<std::string> settings = advise(run, least).settings;
        if (std::ranges::find(settings, "optim=adamw_8bit") != settings.end()) break;
    }
    const Config& c = run.config;
    const FittedConfig without = fit_memory(c, {}, fit_subject(run, one_rank()), {.device = least, .host = 0});
    EXPECT_FALSE(without.fits);
    EXPECT_TRUE(advise(run, least).fits);
    EXPECT_TRUE(fit_memory(c, {}, fit_subject(run, one_rank()), {.device = without.need.device, .host = 0}).fits);
}

}  // namespace
}  // namespace colonnade
