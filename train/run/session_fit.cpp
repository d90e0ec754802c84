#include "train/run/session_fit.h"

#include "engine/io/files.h"
#include "train/folders/run_checkpoints.h"
#include "train/run/learner_options.h"
#include "train/run/sample_answers.h"

namespace colonnade {
namespace {

/// All ranks choose the same settings: those for the rank that has the least.
std::optional<MemoryRoom> least_room(const std::optional<MemoryRoom>& own, const Ranks& ranks) {
    const auto least = [&](size_t bytes) {
        return static_cast<size_t>(-ranks.max("memory", -static_cast<int64_t>(std::min<size_t>(bytes, INT64_MAX))));
    };
    const MemoryRoom room{.device = least(own ? own->device : 0), .host = least(own ? own->host : 0)};
    return room.device > 0 ? std::optional(room) : std::nullopt;
}

/// The config that the run to resume was written with.
std::optional<Config> config_to_resume(const Config& c, const Ranks& ranks) {
    const std::string& from = c.resume_from_checkpoint;
    if (from.empty()) return {};
    std::string path = from;
    if (const std::vector<int64_t> steps = checkpoint_steps(c.output_dir); from == "auto" && !steps.empty())
        path = checkpoint_folder(c.output_dir, steps.back());
    path += "/config.yaml";
    std::string yaml;
    try {
        if (ranks.first() && path_exists(path)) yaml = read_file(path);
    } catch (const Error&) {  // a checkpoint that cannot be read says so later
    }
    yaml = ranks.broadcast("the config to resume", yaml);
    try {
        return yaml.empty() ? std::nullopt : std::optional(parse_config(yaml, path).config);
    } catch (const Error&) {  // of another version
        return {};
    }
}

}  // namespace

StepAmounts amounts_of_token(const Session& s) {
    return amounts_of_token(s.config, s.model, s.train.store.lengths(), s.train.store.learned_count());
}

FitSubject fit_subject(const Session& s, const Ranks& ranks) {
    const Config& c = s.config;
    const double samples = static_cast<double>(std::max<int64_t>(s.train.store.size(), 1)),
                 tokens = static_cast<double>(s.train.store.tokens());
    const double of_pack = std::min(static_cast<double>(c.packing_length), c.packing ? tokens : tokens / samples);
    const bool measured = c.eval_table_size > 0 && (s.device == Device::cpu || built_with_cuda());
    return {.model = s.model,
            .device = s.device,
            .ranks = ranks.size(),
            .local_ranks = ranks.local_size(),
            .density = density_of(s),
            .of_pack = amounts_of_token(s).times(of_pack),
            .rates = rates_to_compare(c, s.device),
            .beside = measured ? SampleAnswers::planned_bytes(s) : 0,
            .can_adapt = s.text.folder.added.empty() && !c.model,
            .can_split = c.lora_dropout == 0 && c.neftune_noise_alpha == 0};
}

void fit_session(Session& s, const Ranks& ranks, SessionUse use) {
    Config& c = s.config;
    if (c.fit == Fit::off) return;
    const std::optional<MemoryRoom> room = least_room(memory_room(c, s.device, ranks, use), ranks);
    const std::optional<Config> then = config_to_resume(c, ranks);
    s.fit = find_fit(c, s.given, fit_subject(s, ranks), room, then);
    for (const std::string& setting : s.fit->settings) s.given.insert(setting.substr(0, setting.find('=')));
}

std::string fit_text(const Session& s, const Ranks& ranks) {
    const Config& c = s.config;
    if (!s.fit && c.gpu_memory.bytes == 0 && c.host_memory.bytes == 0) return {};
    return fit_text(s.fit ? &*s.fit : nullptr, c, fit_subject(s, ranks),
                    s.fit ? s.fit->room : memory_room(c, s.device, ranks, SessionUse::plan));
}

}  // namespace colonnade
