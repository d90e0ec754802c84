// Training on several ranks from a user's view: the same result as one rank, in the same order; the same bits in every
// run; checkpoints for any number of ranks. What happens when a rank fails: rank_failures_test.cpp.

#include "tests/support/answer_trees.h"
#include "tests/support/rank_runs.h"
#include "train/objectives/policy_objective.h"
#include "train/objectives/preference_objective.h"
#include "train/run/rank_check.h"
#include "train/run/session_fit.h"

namespace colonnade {
namespace {

using RanksOnDevice = OnDevice<RanksTest>;
INSTANTIATE_TEST_SUITE_P(Devices, RanksOnDevice, every_device(), name_of_device);

// --- The same result as one rank -------------------------------------------------------------------------------------

TEST_P(RanksOnDevice, LearnWhatOneRankLearns) {
    train_ranks(1, "one", {"gradient_accumulation_steps=12"});
    for (const int n : on_gpus() ? std::vector{2} : std::vector{2, 3, 4}) {
        const std::string name = std::to_string(n);
        train_ranks(n, name, {fmt::format("gradient_accumulation_steps={}", 12 / n)});
        expect_close(name, "one");
    }
}

/// With memory for a shard of the optimizer's state alone.
TEST_F(RanksTest, FitByTheSameSettings) {
    const std::vector<std::string> given = {"gradient_accumulation_steps=2", "gradient_checkpointing=none",
                                            "head_chunk=64"};
    Session session;
    std::vector<std::string> all = given;
    all.push_back(output("planned"));
    quietly([&] { session = open_session(load_config(config(), all)); });
    FitSubject subject = fit_subject(session, one_rank());
    subject.ranks = subject.local_ranks = 2;
    session.config.zero_stage = 1;
    const size_t bytes = memory_need(subject, session.config).device;
    all = given;
    all.insert(all.end(), {"fit=auto", fmt::format("host_memory={}B", 2 * bytes)});
    const Program::Result fitted = train_ranks(2, "fitted", all);
    EXPECT_NE(fitted.out.find("\nfit        zero_stage: 1: "), std::string::npos) << fitted.out;
    EXPECT_EQ(load_config(path("fitted/config.yaml")).config.zero_stage, 1);
    train_ranks(2, "whole", given);
    expect_same("fitted", "whole");
}

/// Adapters without dropout; one rank resumes from a checkpoint of two ranks with sharded state.
TEST_P(RanksOnDevice, LearnTheAdaptersOfOneRank) {
    train_ranks(1, "base", {"save_strategy=no"});
    write_tuning("finetuning_type: lora\nlora_rank: 4\n");
    train_ranks(1, "one", {"gradient_accumulation_steps=4"});
    train_ranks(2, "two", {"gradient_accumulation_steps=2", "export_merged=true"});
    expect_close("two", "one");
    train_ranks(2, "sharded", {"gradient_accumulation_steps=2", "zero_stage=1"});
    expect_same("sharded", "two");
    const auto adapters = [&](const std::string& name) { return slurp(path(name) + "/adapter_model.safetensors"); };
    EXPECT_TRUE(adapters("sharded") == adapters("two"));
    EXPECT_TRUE(std::filesystem::exists(path("two/merged/config.json")));

    train_ranks(2, "stopped",
                {"gradient_accumulation_steps=2", "zero_stage=1", "max_steps=4", "lr_scheduler_type=constant"});
    const Program::Result resumed =
        train_ranks(1, "stopped", {"gradient_accumulation_steps=4", "max_steps=8", "resume_from_checkpoint=auto"});
    EXPECT_NE(resumed.out.find("2 ranks made the checkpoint, now there are 1"), std::string::npos) << resumed.out;

    // Each rank draws its own masks.
    train_ranks(1, "one dropping", {"gradient_accumulation_steps=4", "lora_dropout=0.3"});
    train_ranks(2, "two dropping", {"gradient_accumulation_steps=2", "lora_dropout=0.3"});
    EXPECT_FALSE(adapters("two dropping") == adapters("one dropping"));
}

/// Frozen layers: buckets and shards are those of the trained part.
TEST_F(RanksTest, LearnTheLayersOfOneRank) {
    train_ranks(1, "base", {"save_strategy=no"});
    write_tuning("finetuning_type: freeze\nfreeze_trainable_layers: 1\nneftune_noise_alpha: 5\n");
    train_ranks(1, "one", {"gradient_accumulation_steps=4"});
    train_ranks(2, "two", {"gradient_accumulation_steps=2"});
    expect_close("two", "one");
    train_ranks(2, "sharded", {"gradient_accumulation_steps=2", "zero_stage=1"});
    expect_same("sharded", "two");
}

/// Rank 0 computes the reference, the others read it.
TEST_P(RanksOnDevice, LearnThePairsOfOneRank) {
    spill(path("train.jsonl"), pair_rows(120));
    for (const char* stage : {"dpo", "rm"}) {
        const std::string of = std::string("stage=") + stage, one = std::string(stage) + "-1",
                          two = std::string(stage) + "-2";
        train_ranks(1, one,
                    {of, "packing_length=96", "gradient_accumulation_steps=4", "prepared_path=" + path(one + "-data")});
        train_ranks(2, two,
                    {of, "packing_length=96", "gradient_accumulation_steps=2", "prepared_path=" + path(two + "-data")});
        expect_close(two, one, 2e-5);
        train_ranks(2, two + "-sharded",
                    {of, "packing_length=96", "gradient_accumulation_steps=2", "zero_stage=1",
                     "prepared_path=" + path(two + "-data")});
        expect_same(two + "-sharded", two);
    }
}

/// Samples that share a beginning: a row computes it once, each rank for its own rows.
TEST_P(RanksOnDevice, LearnThePrefixTreesOfOneRank) {
    spill(path("train.jsonl"), rows_behind_beginnings(600));
    const auto with = [](std::vector<std::string> settings) {
        settings.insert(settings.end(), {"max_length=128", "packing_length=256", "share_prefixes=true"});
        return settings;
    };
    const Program::Result one = train_ranks(1, "one", with({"gradient_accumulation_steps=4"}));
    EXPECT_NE(one.out.find("\nprefixes "), std::string::npos) << one.out;
    train_ranks(2, "two", with({"gradient_accumulation_steps=2"}));
    expect_close("two", "one");
    train_ranks(2, "sharded", with({"gradient_accumulation_steps=2", "zero_stage=1"}));
    expect_same("sharded", "two");
}

// --- The same bits ---------------------------------------------------------------------------------------------------

TEST_F(RanksTest, GiveTheSameBitsInEveryRunAndInEveryStage) {
    const std::string packs = "gradient_accumulation_steps=2";
    train_ranks(3, "first", {packs});
    train_ranks(3, "second", {packs});
    expect_same("second", "first");
    train_ranks(3, "sharded", {packs, "zero_stage=1", "param_checksum_steps=2"});
    expect_same("sharded", "first");
    train_ranks(3, "bf16", {packs, "grad_sync_dtype=bf16"});
    EXPECT_FALSE(result("bf16").model == result("first").model);
    train_ranks(3, "bf16 sharded", {packs, "grad_sync_dtype=bf16", "zero_stage=1"});
    expect_same("bf16 sharded", "bf16");
    train_ranks(3, "8 bit", {packs, "optim=adamw_8bit"});
    EXPECT_FALSE(result("8 bit").model == result("first").model);
    train_ranks(3, "8 bit sharded", {packs, "optim=adamw_8bit", "zero_stage=1"});
    expect_same("8 bit sharded", "8 bit");
    train_ranks(3, "muon", {packs, "optim=muon", "param_checksum_steps=1"});
    train_ranks(3, "muon again", {packs, "optim=muon"});
    expect_same("muon again", "muon");
}

/// On GPUs also with half of each rank's optimizer state in host memory; a CPU has all of it there.
TEST_P(RanksOnDevice, GiveTheSameBitsOverTwoHundredSteps) {
    spill(path("train.jsonl"), chain_rows(2000));
    const auto train = [&](const std::string& name, std::vector<std::string> settings) {
        settings.insert(settings.end(), {"max_steps=200", "eval_steps=100", "packing_length=256", "learning_rate=3e-3",
                                         "param_checksum_steps=50"});
        const Program::Result result = train_ranks(ranks(), name, settings);
        if (name != "first") expect_same(name, "first");
        return result;
    };
    train("first", {});
    const std::vector<Json> log = result("first").log;
    EXPECT_LT(value_at(log, "loss", 200), 0.5 * value_at(log, "loss", 1)) << "nothing was learned";
    train("again", {});
    train("sharded", {"zero_stage=1"});
    if (!on_gpus()) return;
    const Program::Result offloaded = train("offloaded", {"zero_stage=1", "offload_optimizer=0.5"});
    EXPECT_NE(offloaded.out.find(" of the host's, on each rank"), std::string::npos) << offloaded.out;
}

TEST_P(RanksOnDevice, ResumeOnAnotherNumberOfRanks) {
    const auto packs = [](int ranks) { return fmt::format("gradient_accumulation_steps={}", 6 / ranks); };
    train_ranks(ranks(), "unbroken", {packs(ranks()), "save_steps=4", "save_total_limit=0"});
    const auto start_from_four = [&](const std::string& name) {
        std::filesystem::create_directories(path(name));
        std::filesystem::copy(path("unbroken"), path(name), std::filesystem::copy_options::recursive);
        std::filesystem::remove_all(path(name) + "/checkpoint-8");
        for (const char* file : {"config.json", "model.safetensors"}) std::filesystem::remove(path(name) + "/" + file);
    };
    // The same number of ranks with another zero_stage: the same bits.
    start_from_four("same");
    const std::string resume = "resume_from_checkpoint=auto", every = "save_steps=4";
    const Program::Result same =
        train_ranks(ranks(), "same", {packs(ranks()), every, resume, "zero_stage=1", "async_save=false"});
    EXPECT_NE(same.out.find("resumed from " + path("same") + "/checkpoint-4 at step 4 of 8"), std::string::npos);
    EXPECT_EQ(count_of(same.out, "note: "), 0) << same.out;
    expect_same("same", "unbroken");
    // Fewer ranks.
    for (int fewer = last_rank(); fewer > 0; --fewer) {
        const std::string name = fmt::format("on {}", fewer);
        start_from_four(name);
        const Program::Result result = train_ranks(fewer, name, {packs(fewer), every, resume, "zero_stage=1"});
        EXPECT_NE(result.out.find(fmt::format("{} ranks made the checkpoint, now there are {}", ranks(), fewer)),
                  std::string::npos)
            << result.out;
        expect_close(name, "unbroken");
    }
    // A note reports steps of another size.
    start_from_four("less");
    const Program::Result less = train_ranks(2, "less", {"gradient_accumulation_steps=2", every, resume});
    EXPECT_NE(less.out.find("the number of packs per step changed from 6 to 4"), std::string::npos) << less.out;
}

// --- Plans and errors ------------------------------------------------------------------------------------------------

TEST_F(RanksTest, MayBeMoreThanPacks) {
    spill(path("train.jsonl"), chain_rows(6));
    write_config("logging_steps: 1\nlearning_rate: 1e-2\nnum_train_epochs: 2\neval_datasets: [{path: " +
                 path("train.jsonl") + "}]\n");
    train_ranks(1, "one", {"gradient_accumulation_steps=4"});
    const Program::Result four = train_ranks(4, "four", {"zero_stage=1"});
    EXPECT_NE(four.out.find("some ranks get no samples"), std::string::npos) << four.out;
    expect_close("four", "one");
}

TEST_F(RanksTest, PlanReportsTheMemoryOfEachRank) {
    std::vector<std::string> arguments = train_on(3, "run", {"zero_stage=1", "--plan"});
    const Program::Result plan = Program(mpirun(), arguments, allow_ranks).wait();
    EXPECT_EQ(plan.exit, 0) << plan.err;
    EXPECT_EQ(count_of(plan.out, "8 steps x 3 packs (1 micro-step x 1 on each of 3 ranks)"), 1) << plan.out;
    EXPECT_EQ(count_of(plan.out, "\nranks      the slowest of 3 has "), 1) << plan.out;
    EXPECT_EQ(count_of(plan.out, "memory of each rank: CPU"), 1) << plan.out;
    EXPECT_FALSE(std::filesystem::exists(path("run")));
}

TEST_F(RanksTest, ReportErrorsOnce) {
    const Program::Result key = train_ranks(3, "run", {"learning_rat=1e-3"}, Exit::config);
    EXPECT_NE(key.err.find("learning_rate"), std::string::npos) << key.err;
    spill(path("train.jsonl"), "{\"input_ids\": [1, 2], \"labels\": [1]}\n");
    const Program::Result row = train_ranks(3, "run", {}, Exit::data);
    EXPECT_NE(row.err.find(path("train.jsonl") + ":1:"), std::string::npos) << row.err;
}

// --- The same updates as one rank ------------------------------------------------------------------------------------

/// Bounds on the difference between updates of several ranks and of one.
struct UpdateBounds {
    uint64_t steps;
    double sums;  ///< relative: of the loss, and the gradients' norm
    /// Absolute. AdamW divides by the square root of v, which amplifies the rounding of gradients near 0.
    std::optional<double> weights;
    double moments;  ///< of the largest
};
constexpr UpdateBounds in_double{.steps = 3, .sums = 1e-12, .weights = 1e-9, .moments = 1e-13};
/// Gradients are added up in f32. One step only: in the next a weight might round to another bf16 value.
constexpr UpdateBounds on_gpus{.steps = 1, .sums = 1e-6, .weights = {}, .moments = 1e-6};

/// Ranks that see one batch each make the same updates as one learner that sees all batches. In the second step the
/// last rank has no samples, although its first step left gradients behind.
void expect_updates_of_one(const Ranks& ranks, Learner& alone, Learner& together, const UpdateBounds& bounds,
                           const std::function<Batch(uint64_t draw)>& batch) {
    const Objective& objective = alone.objective();
    for (uint64_t step = 0; step < bounds.steps; ++step) {
        std::vector<Batch> batches;
        double total = 0;
        for (int r = 0; r < ranks.size(); ++r) {
            const bool empty = step == 1 && r + 1 == ranks.size();
            batches.push_back(empty ? Batch() : batch(100 * step + static_cast<uint64_t>(r)));
            total += objective.total(batches.back());
        }
        alone.begin_step();
        together.begin_step();
        const Context ctx = alone.context({.deterministic = true}),
                      ctx_together = together.context({.deterministic = true});
        for (const Batch& b : batches) alone.accumulate(ctx, b, {.total = total});
        together.accumulate(ctx_together, batches[static_cast<size_t>(ranks.rank())], {.total = total, .last = true});
        alone.update(ctx, {.weight_decay = 0.1}, 1e-2, 0.01);
        together.update(ctx_together, {.weight_decay = 0.1}, 1e-2, 0.01);
        const StepResult a = alone.result(), b = together.result();
        const LossSums::Numbers x = a.loss.numbers(), y = b.loss.numbers();
        for (size_t i = 0; i < x.size(); ++i)
            if (x[i] != y[i]) {  // the minimum or maximum of no values is infinite
                EXPECT_NEAR(y[i], x[i], bounds.sums * std::max(1.0, std::abs(x[i]))) << "number " << i;
            }
        EXPECT_GT(a.loss.nll, 0);
        EXPECT_NEAR(b.gradient_norm, a.gradient_norm, bounds.sums * a.gradient_norm);
        EXPECT_LT(b.clip_factor, 1);
    }
    if (bounds.weights) {
        const std::vector<double> a = numbers_of(alone, alone.weights()), b = numbers_of(together, together.weights());
        double worst = 0;
        for (size_t k = 0; k < a.size(); ++k) worst = std::max(worst, std::abs(a[k] - b[k]));
        EXPECT_LT(worst, *bounds.weights);
    }
    require_same_weights(ranks, together.weights_checksum(), 3, 0);
    const auto shares = together.optimizer_state(), states = alone.optimizer_state();
    for (size_t array = 0; array < states.size(); ++array) {
        const HostCopy own = shares[array].read(together.options().gpu);
        const bool shared = own.tensor().numel() < states[array].size();
        const HostCopy all = HostCopy::blank(own.tensor().dtype, shared ? states[array].size() : 0);
        if (shared) together.sync().collect(all.tensor(), own.tensor());
        if (!ranks.first()) continue;
        const std::vector<double> x = numbers_of(shared ? all.tensor() : own.tensor()),
                                  y = numbers_of(alone, states[array]);
        double largest = 0, difference = 0;
        for (size_t i = 0; i < y.size(); ++i) {
            largest = std::max(largest, std::abs(y[i]));
            difference = std::max(difference, std::abs(x[i] - y[i]));
        }
        EXPECT_GT(largest, 0);
        EXPECT_LT(difference, bounds.moments * largest);
    }
}

void fill_randomly(Learner& learner) {
    if (learner.options().lora) {
        const DType dtype = learner.options().gpu ? DType::f32 : DType::f64;
        const auto base = tiny_learner(learner.config(), dtype, 1, 2);
        learner.fill_base([&](const Parameter& p, const Tensor& into) {
            dispatch_float(
                dtype, [&]<typename T>() { std::copy_n(base->weights().as<T>() + p.begin, p.size(), into.as<T>()); });
        });
    }
    randomize(learner, 5);
}

/// In double: full training and adapters; language models, pairs and policies; both values of zero_stage.
TEST(DISABLED_EveryRank, UpdatesInDouble) {
    Ranks ranks({.program = "ranks_test"});
    const auto communicator = Communicator::join(ranks, nullptr, true);
    const auto pairs = std::make_shared<PreferenceObjective>(
        PreferenceMix{.count = 1, .losses = {PreferenceLoss::sigmoid}, .weights = {1}});
    const auto policy = std::make_shared<PolicyObjective>(PolicyOptions{.settings = {.loss = PolicyLoss::grpo}});
    const LoraSettings all{.rank = 3, .targets = {lora_modules().begin(), lora_modules().end()}, .head = true};
    for (const auto& [architecture, tied] :
         {std::pair(Architecture::llama, true), {Architecture::llama, false}, {Architecture::qwen3, false}})
        for (const int64_t zero_stage : {0, 1})
            for (const bool lora : {false, true})
                for (const Stage stage : {Stage::sft, Stage::dpo, Stage::grpo}) {
                    const bool preferences = stage == Stage::dpo;
                    if (lora && tied) continue;  // a tied head cannot be trained
                    const ModelConfig config = tiny_config(architecture, tied);
                    LearnerOptions options{.max_packs = 1, .max_length = 32, .head_chunk = 7, .dtype = DType::f64};
                    if (lora) options.lora = all;
                    if (preferences) options.objective = pairs;
                    if (stage == Stage::grpo) options.objective = policy;
                    Learner alone(config, options);
                    options.sync = {.communicator = communicator.get(), .zero_stage = zero_stage};
                    Learner together(config, options);
                    fill_randomly(alone);
                    fill_randomly(together);
                    expect_updates_of_one(ranks, alone, together, in_double, [&](uint64_t draw) {
                        const auto i = static_cast<int64_t>(draw % 100);
                        if (stage == Stage::grpo) {
                            Sample answer = tree(draw, i + 1, {9 + i}, config.vocab_size);
                            answer.sequences[0].advantage = -0.5f - static_cast<float>(i) / 8;
                            answer.sequences[0].reward = static_cast<float>(i);
                            answer.sequences[0].logps.old.assign(
                                static_cast<size_t>(learned_tokens(answer.sequences[0])), -3.5f);
                            return make_batch({{&answer}});
                        }
                        const Sample sample = preferences ? tree(draw, i + 1, {9 + i, 5}, config.vocab_size)
                                                          : random_sample(draw, i + 1, {9 + i, 5}, config.vocab_size);
                        Batch batch = make_batch({{&sample}});
                        if (preferences) batch.reference = {-20.0 - static_cast<double>(i), -15};
                        return batch;
                    });
                }
}

/// One GPU per rank, through NCCL: full training and adapters, both values of zero_stage.
TEST(DISABLED_EveryRank, UpdatesOnGpus) {
    Ranks ranks({.program = "ranks_test"});
    Gpu gpu(ranks.local_rank());
    const auto communicator = Communicator::join(ranks, &gpu, true);
    for (const Architecture architecture : {Architecture::llama, Architecture::qwen3})
        for (const int64_t zero_stage : {0, 1})
            for (const bool lora : {false, true}) {
                const ModelConfig config = small_config(architecture);
                LearnerOptions options{.max_packs = 1, .max_length = 300, .head_chunk = 64, .gpu = &gpu};
                if (lora)
                    options.lora = LoraSettings{.rank = 8, .targets = {lora_modules().begin(), lora_modules().end()}};
                Learner alone(config, options);
                options.sync = {.communicator = communicator.get(), .zero_stage = zero_stage};
                Learner together(config, options);
                fill_randomly(alone);
                fill_randomly(together);
                expect_updates_of_one(ranks, alone, together, on_gpus, [&](uint64_t draw) {
                    const auto i = static_cast<int64_t>(draw % 100);
                    const Sample sample = random_sample(draw, i + 1, {190 + i, 70}, config.vocab_size);
                    return make_batch({{&sample}});
                });
            }
}
TEST_P(RanksOnDevice, UpdateAsOneDoes) {
    for (const int n : on_gpus() ? std::vector{2} : std::vector{2, 3}) {
        const Program::Result result =
            run_on_ranks(n, on_gpus() ? "DISABLED_EveryRank.UpdatesOnGpus" : "DISABLED_EveryRank.UpdatesInDouble");
        EXPECT_EQ(result.exit, 0) << result.out << result.err;
        EXPECT_EQ(count_of(result.out, "[  PASSED  ] 1 test"), n) << result.out;
    }
}

}  // namespace
}  // namespace colonnade
