#include "train/bench/benchmark_run.h"

#include <omp.h>

#include <cmath>

#include "engine/device/device.h"
#include "train/bench/model_shapes.h"
#include "train/folders/initial_weights.h"

namespace colonnade {
namespace {

ModelConfig model_of(const ShapeRequest& r) {
    ModelConfig m;
    if (!r.model.empty()) {
        m = model_shape(r.model);
    } else {
        m.hidden_size = r.sizes.at(0);
        m.intermediate_size = r.sizes.at(1);
        m.num_hidden_layers = r.sizes.at(2);
        m.num_attention_heads = r.sizes.at(3);
        m.num_key_value_heads = r.sizes.at(4);
        m.head_dim = r.sizes.at(5);
        m.vocab_size = r.sizes.at(6);
        m.tie_word_embeddings = true;
        m.windows.assign(static_cast<size_t>(std::max<int64_t>(m.num_hidden_layers, 0)), 0);
        validate(m, "--shape");
    }
    m.score_head = r.config.stage == Stage::rm;
    return m;
}

/// Keys that reading a config would have settled.
Config settled(const ShapeRequest& r) {
    Config c = r.config;
    c.per_device_eval_batch_size = c.per_device_train_batch_size;
    c.data_seed = c.seed;
    c.learning_rate = 1e-4;
    c.adam_beta2 = 0.95;  // as scripts/peer_step.py has it
    c.weight_decay = 0.01;
    c.loss_weights = {1};
    c.precompute_ref_log_probs = c.stage == Stage::dpo;
    if (c.lora_rank > 0) {
        c.finetuning_type = Finetuning::lora;
        c.lora_alpha = 2 * static_cast<double>(c.lora_rank);
        if (c.lora_target.empty()) c.lora_target = {lora_modules().begin(), lora_modules().end()};
        if (c.stage == Stage::rm) c.modules_to_save = {"score"};
    }
    if (!r.lengths.empty()) c.packing_length = longest_row(read_row_lengths(r.lengths));
    if (!r.pair_lengths.empty()) c.packing_strategy = PackStrategy::sequential;  // all are of one length
    return c;
}

void draw_pairs(BenchmarkRun& run, const ShapeRequest& r) {
    const Config& c = run.session.config;
    const PairLengths lengths{r.pair_lengths.at(0), r.pair_lengths.at(1), r.pair_lengths.at(2), r.repeat_prompts};
    const int64_t per_row = c.packing_length / lengths.tokens();
    if (per_row == 0)
        fail(Exit::config, "pairs of {} tokens{} do not fit into rows of {}", lengths.tokens(),
             r.repeat_prompts ? ", repeated prompts included," : "", c.packing_length);
    run.rows = fmt::format("pairs of {} + {} + {} tokens{}", lengths.prompt, lengths.chosen, lengths.rejected,
                           r.repeat_prompts ? ", prompts repeated" : "");
    const int64_t pairs = run.steps * run.layout.packs_per_step() * per_row, vocab = run.session.model.vocab_size;
    run.session.train.store = random_pairs(lengths, pairs, vocab, static_cast<uint64_t>(c.seed));
    if (c.stage != Stage::dpo) return;
    for (int64_t i = 0; i < pairs; ++i)
        for (const int64_t answer : {lengths.chosen, lengths.rejected})
            run.reference.push_back(-static_cast<double>(answer) * std::log(static_cast<double>(vocab)));
}

void draw_samples(BenchmarkRun& run, int64_t mean_length) {
    const Config& c = run.session.config;
    run.rows = fmt::format("log-normal lengths, {} on average", mean_length);
    run.session.train.store = random_samples({.mean_length = mean_length,
                                              .max_length = c.packing_length,
                                              .tokens = run.steps * run.layout.packs_per_step() * c.packing_length,
                                              .vocab = run.session.model.vocab_size,
                                              .seed = static_cast<uint64_t>(c.seed)});
}

void draw_rows(BenchmarkRun& run, const std::string& file, const Ranks& ranks) {
    const Config& c = run.session.config;
    const RowLengths rows = file.empty() ? RowLengths{{c.packing_length}} : read_row_lengths(file);
    run.rows = file.empty() ? "one document per pack" : "rows of " + file;
    const int64_t packs = run.layout.per_device_batch;
    for (int64_t i = 0; i < run.steps * run.layout.accumulation; ++i) {
        const int64_t of_all = i * ranks.size() + ranks.rank();
        run.batches.push_back(random_batch(rows, of_all * packs, packs, run.session.model.vocab_size,
                                           Philox{static_cast<uint64_t>(c.seed), static_cast<uint64_t>(of_all)}));
    }
}

/// Normal draws that repeat: billions of them would take minutes. A prime, so that no two rows of a matrix are alike.
constexpr int64_t distinct_weights = 1'048'573;

/// A frozen base and heads that are trained beside adapters are random as well.
void fill_randomly(const Session& session, Learner& learner) {
    const Initialization random{.seed = static_cast<uint64_t>(session.config.seed),
                                .range = session.model.initializer_range,
                                .distinct = distinct_weights};
    if (learner.options().lora)
        learner.fill_base([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
    learner.fill_weights([&](const Tensor& flat) { initialize(learner.parameters(), random, flat); });
}

}  // namespace

BenchmarkRun run_of_config(const std::string& path, const std::vector<std::string>& overrides, const StepCounts& steps,
                           const Ranks& ranks) {
    BenchmarkRun run{.session = open_session(load_config(path, overrides), ranks), .steps = steps.all(ranks)};
    const Config& c = run.session.config;
    run.session.eval = {};  // nothing is evaluated: nor has it a reference
    run.name = name_of(run.session.model.architecture);
    run.rows = "samples of " + path;
    run.layout = {c.per_device_train_batch_size, c.gradient_accumulation_steps, ranks.size()};
    return run;
}

BenchmarkRun run_of_shape(const ShapeRequest& request, const StepCounts& steps, const Ranks& ranks) {
    BenchmarkRun run{.random_weights = true, .steps = steps.all(ranks)};
    Session& s = run.session;
    s.config = settled(request);
    s.model = model_of(request);
    if (!ranks.several()) s.config.threads = omp_get_max_threads();
    s.device = settle_machine(s.config, ranks);
    run.name = request.model.empty() ? name_of(s.model.architecture) : request.model;
    run.layout = {s.config.per_device_train_batch_size, s.config.gradient_accumulation_steps, ranks.size()};
    if (run.has_pairs())
        draw_pairs(run, request);
    else if (request.mean_length > 0)
        draw_samples(run, request.mean_length);
    else
        draw_rows(run, request.lengths, ranks);
    return run;
}

std::string plan_of_shape(const ShapeRequest& request, const Ranks& ranks) {
    Config c = settled(request);
    const bool cuda =
        c.device == DeviceChoice::cuda || (c.device == DeviceChoice::automatic && !cuda_devices().empty());
    const Device device = cuda ? Device::cuda : Device::cpu;
    settle_device(c, device);
    return Learner::plan(model_of(request), learner_options(c, ranks), device).table();
}

void fill_weights_and_reference(BenchmarkRun& run, Learner& learner, const Context& ctx, const Ranks& ranks) {
    ranks.together("weights", [&] {
        if (run.random_weights) return fill_randomly(run.session, learner);
        load_or_initialize(run.session.config, learner);
        if (learner.objective().needs_reference() && learner.options().reference == Reference::batches)
            run.reference = make_references(run.session, learner, ctx, ranks).train;
    });
}

}  // namespace colonnade
