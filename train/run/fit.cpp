#include "train/run/fit.h"

#include <algorithm>
#include <optional>

#include "train/config/keys.h"
#include "train/run/learner_options.h"

namespace colonnade {
namespace {

using Configs = std::vector<Config>;

/// Copies of a config, each with another value of a field.
template <typename T, typename Set>
Configs with_each(const Config& config, const std::vector<T>& values, const Set& set) {
    Configs configs(values.size(), config);
    for (size_t i = 0; i < values.size(); ++i) set(configs[i], values[i]);
    return configs;
}

Configs more_recomputed(const Config& c, const FitSubject&) {
    std::vector<Recompute> values;
    for (const Recompute more : {Recompute::selective, Recompute::block})
        if (more > c.gradient_checkpointing) values.push_back(more);
    return with_each(c, values, [](Config& to, Recompute value) { to.gradient_checkpointing = value; });
}

Configs fewer_packs(const Config& c, const FitSubject& subject) {
    std::vector<int64_t> values;
    for (int64_t packs = c.per_device_train_batch_size - 1; packs >= 1 && subject.can_split; --packs)
        if (c.per_device_train_batch_size % packs == 0) values.push_back(packs);
    return with_each(c, values, [&](Config& to, int64_t packs) {
        to.gradient_accumulation_steps *= to.per_device_train_batch_size / packs;
        to.per_device_train_batch_size = packs;
        to.per_device_eval_batch_size = std::min(to.per_device_eval_batch_size, packs);
    });
}

/// Numbers of blocks above `now`: a quarter of `most` more at a time.
std::vector<int64_t> more_blocks(int64_t now, int64_t most) {
    std::vector<int64_t> values;
    for (const int64_t quarters : {1, 2, 3, 4})
        if (const int64_t blocks = quarters * most / 4; blocks > (values.empty() ? now : values.back()))
            values.push_back(blocks);
    return values;
}

Configs more_offloaded_inputs(const Config& c, const FitSubject& subject) {
    if (subject.device == Device::cpu) return {};
    const int64_t most = subject.model.num_hidden_layers - 2;
    return with_each(c, more_blocks(c.offload_activations.count, most), [&](Config& to, int64_t blocks) {
        to.offload_activations.count = blocks == most ? BlockCount::all : blocks;
    });
}

Configs more_offloaded_weights(const Config& c, const FitSubject& subject) {
    if (subject.device == Device::cpu || subject.ranks > 1 || c.optim == Optim::muon || c.eval_table_size > 0)
        return {};
    const int64_t most = subject.model.num_hidden_layers;
    return with_each(c, more_blocks(c.offload_weights.count, most), [&](Config& to, int64_t blocks) {
        to.offload_weights.count = blocks == most ? BlockCount::all : blocks;
    });
}

Configs fewer_logits(const Config& c, const FitSubject&) {
    std::vector<int64_t> values;
    for (const int64_t chunk : {1024, 256})
        if (chunk < c.head_chunk) values.push_back(chunk);
    return with_each(c, values, [](Config& to, int64_t chunk) { to.head_chunk = chunk; });
}

/// Only for ranks of one machine: others may have no folder in common for the shards of a checkpoint.
Configs sharded_state(const Config& c, const FitSubject& subject) {
    const bool possible =
        subject.ranks > 1 && subject.local_ranks == subject.ranks && c.optim != Optim::muon && !c.export_checkpoints;
    if (c.zero_stage == 1 || !possible) return {};
    return with_each(c, std::vector<int64_t>{1}, [](Config& to, int64_t stage) { to.zero_stage = stage; });
}

/// A twentieth of the optimizer's state more at a time.
Configs more_hosted_state(const Config& c, const FitSubject& subject) {
    if (subject.device == Device::cpu || c.optim == Optim::muon) return {};
    std::vector<double> values;
    for (int twentieths = 1; twentieths <= 20; ++twentieths)
        if (const double share = twentieths / 20.0; share > c.offload_optimizer.value) values.push_back(share);
    return with_each(c, values, [](Config& to, double share) { to.offload_optimizer.value = share; });
}

void copy_packs(Config& to, const Config& from) {
    if (from.per_device_train_batch_size * from.gradient_accumulation_steps !=
        to.per_device_train_batch_size * to.gradient_accumulation_steps)
        return;  // another number of packs in a step
    to.per_device_train_batch_size = from.per_device_train_batch_size;
    to.per_device_eval_batch_size = from.per_device_eval_batch_size;
    to.gradient_accumulation_steps = from.gradient_accumulation_steps;
}

template <auto field>
void copy_field(Config& to, const Config& from) {
    to.*field = from.*field;
}

bool may_change(const MemoryOption& option, const std::set<std::string>& given) {
    return !given.contains(option.keys.front());
}

/// All combinations of the options but the last one.
Configs combinations(const Config& config, const std::set<std::string>& given, const FitSubject& subject) {
    Configs all = {config};
    const std::vector<MemoryOption>& options = memory_options();
    for (size_t i = 0; i + 1 < options.size(); ++i) {
        if (!may_change(options[i], given)) continue;
        for (size_t known = all.size(), k = 0; k < known; ++k)
            for (Config& less : options[i].steps(all[k], subject)) all.push_back(std::move(less));
    }
    if (given.contains("per_device_eval_batch_size"))
        for (Config& each : all) each.per_device_eval_batch_size = config.per_device_eval_batch_size;
    return all;
}

}  // namespace

const std::vector<MemoryOption>& memory_options() {
    using C = Config;
    static const std::vector<MemoryOption> options = {
        {{"gradient_checkpointing"}, more_recomputed, copy_field<&C::gradient_checkpointing>},
        {{"gradient_accumulation_steps", "per_device_train_batch_size", "per_device_eval_batch_size"},
         fewer_packs,
         copy_packs},
        {{"offload_activations"}, more_offloaded_inputs, copy_field<&C::offload_activations>},
        {{"offload_weights"}, more_offloaded_weights, copy_field<&C::offload_weights>},
        {{"head_chunk"}, fewer_logits, copy_field<&C::head_chunk>},
        {{"zero_stage"}, sharded_state, copy_field<&C::zero_stage>},
        {{"offload_optimizer"}, more_hosted_state, copy_field<&C::offload_optimizer>},
    };
    return options;
}

LearnerOptions FitSubject::options(const Config& config) const {
    LearnerOptions options = learner_options(config);
    options.density = density;
    options.sync.ranks = ranks;  // plans for rank 0, so that all ranks make the same choice
    return options;
}

StepTime FitSubject::time(const Config& c) const {
    const auto packs = static_cast<double>(c.per_device_train_batch_size * c.gradient_accumulation_steps);
    return predict_step(model, options(c), c.gradient_accumulation_steps, of_pack.times(packs), rates);
}

static size_t device_need(const FitSubject& subject, const Config& config) {
    return Learner::plan(subject.model, subject.options(config), subject.device).bytes() + subject.beside;
}

MemoryNeed memory_need(const FitSubject& subject, const Config& config) {
    const LearnerOptions options = subject.options(config);
    MemoryNeed need{.device = device_need(subject, config)};
    if (options.offloaded_activations > 0 || options.offloaded_weights > 0 || options.offloaded_optimizer > 0)
        need.host = Learner::host_plan(subject.model, options, subject.device).bytes();
    return need;
}

namespace {

FittedConfig planned(const Config& config, const FitSubject& subject, const MemoryRoom& room) {
    const MemoryNeed need = memory_need(subject, config);
    return {config, need, subject.time(config).total(), need.within(room)};
}

/// The fastest that fits of one combination of the other options with the steps of the last one. From step to step the need
/// of the device falls, and that of the host and the time rise.
std::optional<FittedConfig> fit_by_last_option(const Config& combination, bool may_step, const FitSubject& subject,
                                               const MemoryRoom& room) {
    Configs steps = {combination};
    if (may_step)
        for (Config& less : memory_options().back().steps(combination, subject)) steps.push_back(std::move(less));
    const auto too_large = [&](const Config& c) { return device_need(subject, c) > room.device; };
    if (too_large(steps.back())) return {};  // most combinations end here, after one plan
    FittedConfig found = planned(*std::ranges::partition_point(steps, too_large), subject, room);
    return found.fits ? std::optional(std::move(found)) : std::nullopt;
}

/// Every option as far as it goes within the host's memory.
Config with_least(Config config, const std::set<std::string>& given, const FitSubject& subject, size_t host) {
    for (const MemoryOption& option : memory_options()) {
        if (!may_change(option, given)) continue;
        Configs steps = option.steps(config, subject);
        const auto most = std::find_if(steps.rbegin(), steps.rend(),
                                       [&](const Config& c) { return memory_need(subject, c).host <= host; });
        if (most != steps.rend()) config = *most;
    }
    return config;
}

}  // namespace

FittedConfig fit_memory(const Config& config, const std::set<std::string>& given, const FitSubject& subject,
                        const MemoryRoom& room) {
    if (FittedConfig as_it_is = planned(config, subject, room); as_it_is.fits) return as_it_is;
    const Config least = with_least(config, given, subject, SIZE_MAX);
    std::optional<FittedConfig> best;
    if (device_need(subject, least) <= room.device) {
        struct Candidate {
            Config config;
            double seconds;  ///< without a step of the last option
        };
        std::vector<Candidate> candidates;
        for (Config& c : combinations(config, given, subject)) {
            const double seconds = subject.time(c).total();
            candidates.push_back({std::move(c), seconds});
        }
        std::ranges::stable_sort(candidates, {}, &Candidate::seconds);
        const bool may_step = may_change(memory_options().back(), given);
        for (const Candidate& candidate : candidates) {
            if (best && candidate.seconds > best->seconds) break;
            std::optional<FittedConfig> found = fit_by_last_option(candidate.config, may_step, subject, room);
            if (found &&
                (!best || std::pair(found->seconds, found->need.host) < std::pair(best->seconds, best->need.host)))
                best = std::move(found);
        }
    }
    return best ? std::move(*best) : planned(with_least(config, given, subject, room.host), subject, room);
}

std::vector<std::string> fitted_settings(const Config& before, const Config& after) {
    const std::vector<KeyValue> then = key_values(before), now = key_values(after);
    std::vector<std::string> settings;
    for (size_t i = 0; i < now.size(); ++i)
        for (const MemoryOption& option : memory_options())
            if (std::ranges::find(option.keys, now[i].key) != option.keys.end() && then[i].value != now[i].value)
                settings.push_back(now[i].key + '=' + now[i].value);
    return settings;
}

}  // namespace colonnade
