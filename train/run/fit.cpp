#include "train/run/fit.h"

#include <algorithm>
#include <optional>
#include <ranges>

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
    if (subject.device == Device::cpu || subject.ranks > 1 || c.optim == Optim::muon || c.eval_table_size > 0 ||
        c.base_quantization != BaseQuantization::none)
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

MemoryNeed memory_need(const FitSubject& subject, const Config& config) {
    const LearnerOptions options = subject.options(config);
    MemoryNeed need{.device = Learner::plan(subject.model, options, subject.device).bytes() + subject.beside};
    if (options.offloaded_activations > 0 || options.offloaded_weights > 0 || options.offloaded_optimizer > 0)
        need.host = Learner::host_plan(subject.model, options, subject.device).bytes();
    return need;
}

namespace {

/// A combination of the other options with every step of the last one. From step to step the device's need falls, and the
/// host's and the time rise.
class Steps {
  public:
    Steps(const Config& first, bool may_step, const FitSubject& subject) : subject_(subject), configs_{first} {
        if (may_step)
            for (Config& less : memory_options().back().steps(first, subject)) configs_.push_back(std::move(less));
        needs_.resize(configs_.size());
    }
    /// The number of those that the host has memory for.
    size_t affordable(size_t host) {
        return first_where(configs_.size(), [&](size_t i) { return need(i).host > host; });
    }
    /// The first of `count` that the device has memory for; `count` if there is none.
    size_t first_fitting(size_t device, size_t count) {
        return first_where(count, [&](size_t i) { return need(i).device <= device; });
    }
    FittedConfig at(size_t i, const MemoryRoom& room) {
        return {configs_[i], need(i), subject_.time(configs_[i]).total(), need(i).within(room)};
    }

  private:
    template <typename Holds>
    static size_t first_where(size_t count, const Holds& holds) {
        const auto numbers = std::views::iota(size_t{0}, count);
        return static_cast<size_t>(std::ranges::partition_point(numbers, [&](size_t i) { return !holds(i); }) -
                                   numbers.begin());
    }
    const MemoryNeed& need(size_t i) {
        if (!needs_[i]) needs_[i] = memory_need(subject_, configs_[i]);
        return *needs_[i];
    }

    const FitSubject& subject_;
    Configs configs_;
    std::vector<std::optional<MemoryNeed>> needs_;
};

}  // namespace

FittedConfig fit_memory(const Config& config, const std::set<std::string>& given, const FitSubject& subject,
                        const MemoryRoom& room) {
    FittedConfig best = Steps(config, false, subject).at(0, room);
    if (best.fits) return best;
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
    for (const Candidate& candidate : candidates) {
        if (best.fits && candidate.seconds > best.seconds) break;
        Steps steps(candidate.config, may_change(memory_options().back(), given), subject);
        const size_t affordable = steps.affordable(room.host);
        if (affordable == 0) continue;
        const size_t fitting = steps.first_fitting(room.device, affordable);
        FittedConfig found = steps.at(std::min(fitting, affordable - 1), room);
        const bool better = found.fits != best.fits ? found.fits
                            : found.fits
                                ? std::pair(found.seconds, found.need.host) < std::pair(best.seconds, best.need.host)
                                : best.need.host > room.host || found.need.device < best.need.device;
        if (better) best = std::move(found);
    }
    return best;
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
