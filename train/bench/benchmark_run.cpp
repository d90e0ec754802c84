#include "train/bench/benchmark_run.h"

#include <fmt/ranges.h>
#include <omp.h>

#include <cmath>
#include <numeric>

#include "engine/device/device.h"
#include "engine/device/human_units.h"
#include "train/bench/model_shapes.h"
#include "train/config/keys.h"
#include "train/folders/initial_weights.h"
#include "train/run/machine.h"
#include "train/run/shared_prefixes.h"

namespace colonnade {
namespace {

ModelConfig requested_model(const ShapeRequest& r) {
    ModelConfig model = r.model.empty() ? model_of(r.shape, "--shape") : model_shape(r.model);
    model.score_head = r.config.stage == Stage::rm;
    return model;
}

/// The request's config with its defaults settled.
Config settled(const ShapeRequest& r) {
    Config c = r.config;
    std::set<std::string> given = {"learning_rate", "adam_beta2", "packing_length"};
    c.learning_rate = 1e-4;
    c.adam_beta2 = 0.95;  // as in scripts/peer_step.py
    c.weight_decay = 0.01;
    if (!r.lengths.empty()) c.packing_length = longest_row(read_row_lengths(r.lengths));
    c.max_length = c.packing_length;
    if (!r.pair_lengths.empty()) {  // all pairs have the same length
        c.packing_strategy = PackStrategy::sequential;
        given.insert("packing_strategy");
    }
    if (c.lora_rank > 0) {
        c.finetuning_type = Finetuning::lora;
        given.insert("lora_rank");
        if (!c.lora_target.empty()) given.insert("lora_target");
    }
    settle_defaults(c, given, "bench_step");
    return c;
}

/// Keys of a request that are not left at their defaults.
std::set<std::string> keys_given(const ShapeRequest& r) {
    const std::vector<KeyValue> values = key_values(r.config), defaults = key_values(Config());
    std::set<std::string> given;
    for (size_t i = 0; i < values.size(); ++i)
        if (values[i].value != defaults[i].value) given.insert(values[i].key);
    return given;
}

/// Lengths of the samples that fill rows of the request, or of enough of them for an average.
std::vector<int64_t> sample_lengths(const ShapeRequest& r, const Config& c) {
    if (!r.lengths.empty()) {
        std::vector<int64_t> lengths;
        for (const std::vector<int64_t>& row : read_row_lengths(r.lengths))
            lengths.insert(lengths.end(), row.begin(), row.end());
        return lengths;
    }
    if (!r.pair_lengths.empty())
        return {
            PairLengths{r.pair_lengths.at(0), r.pair_lengths.at(1), r.pair_lengths.at(2), r.repeat_prompts}.tokens()};
    if (!r.trees.empty()) return {r.trees.at(0) + r.trees.at(3)};
    if (r.mean_length == 0) return {c.packing_length};
    return random_samples({.mean_length = r.mean_length,
                           .max_length = c.packing_length,
                           .tokens = 1'000'000,
                           .vocab = 2,
                           .seed = static_cast<uint64_t>(c.seed)})
        .lengths();
}

/// What is learned of the tokens of these samples.
int64_t learned_of(const ShapeRequest& r, const std::vector<int64_t>& lengths) {
    if (!r.pair_lengths.empty()) return r.pair_lengths.at(1) + r.pair_lengths.at(2);
    return r.trees.empty() ? std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) : r.trees.at(3);
}

FitSubject fit_subject(const ShapeRequest& r, const Config& c, const ModelConfig& model, Device device,
                       const Ranks& ranks) {
    const std::vector<int64_t> lengths = sample_lengths(r, c);
    return {
        .model = model,
        .device = device,
        .ranks = ranks.size(),
        .local_ranks = ranks.local_size(),
        .of_pack =
            amounts_of_token(c, model, lengths, learned_of(r, lengths)).times(static_cast<double>(c.packing_length)),
        .rates = rates_to_compare(c, device),
        .can_split = c.lora_dropout == 0};
}

void draw_pairs(BenchmarkRun& run, const ShapeRequest& r) {
    const Config& c = run.session.config;
    const PairLengths lengths{r.pair_lengths.at(0), r.pair_lengths.at(1), r.pair_lengths.at(2), r.repeat_prompts};
    const int64_t per_row = c.packing_length / lengths.tokens();
    if (per_row == 0)
        fail(Exit::config, "pairs of {} tokens{} do not fit into rows of {}", lengths.tokens(),
             r.repeat_prompts ? ", repeated prompts included," : "", c.packing_length);
    run.description = fmt::format("pairs of {} + {} + {} tokens{}", lengths.prompt, lengths.chosen, lengths.rejected,
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
    run.description = fmt::format("log-normal lengths, {} on average", mean_length);
    run.session.train.store = random_samples({.mean_length = mean_length,
                                              .max_length = c.packing_length,
                                              .tokens = run.steps * run.layout.packs_per_step() * c.packing_length,
                                              .vocab = run.session.model.vocab_size,
                                              .seed = static_cast<uint64_t>(c.seed)});
}

void draw_trees(BenchmarkRun& run, const std::vector<int64_t>& trees) {
    Session& s = run.session;
    const Config& c = s.config;
    const TreeLengths lengths{.stem = trees.at(0),
                              .leaves = trees.at(1),
                              .trunk = trees.at(2),
                              .leaf = trees.at(3),
                              .shared = c.share_prefixes != Tristate::off};
    if (lengths.leaves < 1 || lengths.leaf < 1)
        fail(Exit::config, "--trees {}: expected a leaf at least, of a token at least", fmt::join(trees, ","));
    if (lengths.stem >= c.packing_length)
        fail(Exit::config, "a stem of {} tokens fills rows of {}", lengths.stem, c.packing_length);
    run.description = fmt::format("trees of {} tokens, {} leaves of {}{}", lengths.stem, lengths.leaves, lengths.leaf,
                                  lengths.trunk > 0 ? fmt::format(", {} more a turn", lengths.trunk) : "");
    // Rows are unlike each other: more than the steps take, so that these see an average of them.
    s.train.store = random_trees(lengths, {.mean_length = 0,
                                           .max_length = c.packing_length,
                                           .tokens = 4 * run.steps * run.layout.packs_per_step() * c.packing_length,
                                           .vocab = s.model.vocab_size,
                                           .seed = static_cast<uint64_t>(c.seed)});
    share_prefixes(s);
}

void draw_rows(BenchmarkRun& run, const std::string& file, const Ranks& ranks) {
    const Config& c = run.session.config;
    const RowLengths rows = file.empty() ? RowLengths{{c.packing_length}} : read_row_lengths(file);
    run.description = file.empty() ? "one document per pack" : "rows of " + file;
    const int64_t packs = run.layout.per_device_batch;
    for (int64_t i = 0; i < run.steps * run.layout.accumulation; ++i) {
        const int64_t of_all = i * ranks.size() + ranks.rank();
        run.batches.push_back(random_batch(rows, of_all * packs, packs, run.session.model.vocab_size,
                                           Philox{static_cast<uint64_t>(c.seed), static_cast<uint64_t>(of_all)}));
    }
}

/// Number of normal draws after which the values repeat: billions of draws would take minutes. A prime, so that no two
/// rows of a matrix are equal.
constexpr int64_t distinct_weights = 1'048'573;

/// Fills all weights, including a frozen base and a head trained beside adapters.
void fill_randomly(const Session& session, Learner& learner) {
    const Initialization random{.seed = static_cast<uint64_t>(session.config.seed),
                                .range = session.model.initializer_range,
                                .distinct = distinct_weights};
    if (learner.options().lora)
        learner.fill_base([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
    learner.fill_weights([&](const Parameter& p, const Tensor& into) { initialize(p, random, into); });
}

}  // namespace

BenchmarkRun run_of_config(const std::string& path, const std::vector<std::string>& overrides, const StepCounts& steps,
                           const Ranks& ranks) {
    BenchmarkRun run{.session = open_session(load_config(path, overrides), ranks), .steps = steps.all()};
    const Config& c = run.session.config;
    if (c.finetuning_type == Finetuning::freeze)
        fail(Exit::config, "{}: bench_step counts the operations of finetuning_type full and lora, not of freeze",
             path);
    run.session.eval = {};  // nothing is evaluated, so it needs no reference
    run.name = name_of(run.session.model.architecture);
    run.description = "samples of " + path;
    run.layout = {c.per_device_train_batch_size, c.gradient_accumulation_steps, ranks.size()};
    return run;
}

BenchmarkRun run_of_shape(const ShapeRequest& request, const StepCounts& steps, const Ranks& ranks) {
    BenchmarkRun run{.random_weights = true, .steps = steps.all()};
    Session& s = run.session;
    s.config = settled(request);
    s.model = requested_model(request);
    if (!ranks.several()) s.config.threads = omp_get_max_threads();
    s.device = settle_machine(s.config, ranks);
    if (s.config.fit == Fit::automatic)
        run.fit = find_fit(s.config, keys_given(request), fit_subject(request, s.config, s.model, s.device, ranks),
                           memory_room(s.config, s.device, ranks, SessionUse::run));
    run.name = request.model.empty() ? name_of(s.model.architecture) : request.model;
    run.layout = {s.config.per_device_train_batch_size, s.config.gradient_accumulation_steps, ranks.size()};
    if (run.has_pairs())
        draw_pairs(run, request);
    else if (!request.trees.empty())
        draw_trees(run, request.trees);
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
    const ModelConfig model = requested_model(request);
    const FitSubject subject = fit_subject(request, c, model, device, ranks);
    const std::optional<MemoryRoom> room = memory_room(c, device, ranks, SessionUse::plan);
    FoundFit found;
    if (c.fit == Fit::automatic) found = find_fit(c, keys_given(request), subject, room);
    const LearnerOptions options = subject.options(c);
    std::string table = Learner::plan(model, options, device).table();
    const Arena host = Learner::host_plan(model, options, device);
    const auto line = [&](const char* what, const std::string& value) {
        table += fmt::format("  {:<24} {:>12}\n", what, value);
    };
    for (const auto& [what, bytes] : host.groups()) line(what.c_str(), human_bytes(bytes));
    if (c.fit == Fit::automatic || c.gpu_memory.bytes > 0 || c.host_memory.bytes > 0)
        line("fit", fit_text(c.fit == Fit::automatic ? &found : nullptr, c, subject, room));
    if (const PredictedGpu gpu = predicted_gpu(c); cuda && gpu.rates.known())
        line("step time", step_time_text(subject.time(c), gpu));
    return table;
}

void fill_weights_and_reference(BenchmarkRun& run, Learner& learner, const Context& ctx, const Ranks& ranks) {
    ranks.together("weights", [&] {
        if (run.random_weights) return fill_randomly(run.session, learner);
        load_or_initialize(run.session.config, learner);
        run.reference = make_references(run.session, learner, ctx, ranks).train;
    });
}

}  // namespace colonnade
