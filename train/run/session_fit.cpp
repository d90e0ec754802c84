#include "train/run/session_fit.h"

#include <fmt/ranges.h>

#include "engine/device/gpu.h"
#include "engine/device/host_memory.h"
#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "train/config/memory_keys.h"
#include "train/folders/run_checkpoints.h"
#include "train/run/learner_options.h"
#include "train/run/machine.h"
#include "train/run/memory_advice.h"
#include "train/run/sample_answers.h"

namespace colonnade {
namespace {

/// For predictions if no GPU is here.
constexpr const char* assumed_gpu = "NVIDIA H200";

size_t without(size_t bytes, size_t taken) {
    return bytes - std::min(bytes, taken);
}

/// What gpu_memory leaves for a plan.
size_t room_of(const MemorySize& gpu_memory) {
    return without(static_cast<size_t>(gpu_memory.bytes), cuda_memory);
}

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
    try {
        const std::string yaml =
            ranks.broadcast("the config to resume", ranks.first() && path_exists(path) ? read_file(path) : "");
        return yaml.empty() ? std::nullopt : std::optional(parse_config(yaml, path).config);
    } catch (const Error&) {  // of another version; a checkpoint that cannot be resumed says so later
        return {};
    }
}

/// The config with the settings of another one of the same run, as far as they are not given.
Config with_settings_of(const Config& then, const Config& now, const std::set<std::string>& given) {
    Config config = now;
    for (const MemoryOption& option : memory_options())
        if (!given.contains(option.keys.front())) option.copy(config, then);
    if (given.contains("per_device_eval_batch_size"))
        config.per_device_eval_batch_size = now.per_device_eval_batch_size;
    return config;
}

std::string of_room(size_t need, size_t room) {
    return fmt::format("{} of {}", human_bytes(need), human_bytes(room));
}

}  // namespace

std::optional<MemoryRoom> memory_room(const Config& c, Device device, const Ranks& ranks, SessionUse use) {
    const bool run = use == SessionUse::run;
    size_t host = c.host_memory.bytes > 0 ? static_cast<size_t>(c.host_memory.bytes) : available_memory();
    if (run) host = std::min(host, available_memory());
    host /= static_cast<size_t>(ranks.local_size());
    MemoryRoom room{.device = host, .host = host};
    if (device == Device::cuda) {
        const bool here = has_gpu(c.device_index);
        room.device = c.gpu_memory.bytes > 0 ? room_of(c.gpu_memory)
                      : here ? without(cuda_devices().at(static_cast<size_t>(c.device_index)).memory_bytes, cuda_memory)
                             : 0;
        if (run && here) {
            const Gpu gpu(static_cast<int>(c.device_index));
            room.device = std::min(room.device, available_gpu_memory());
        }
    }
    return room.device > 0 ? std::optional(room) : std::nullopt;
}

StepAmounts amounts_of_token(const Config& c, const ModelConfig& model, std::span<const int64_t> lengths,
                             int64_t learned) {
    double tokens = 0;
    for (const int64_t length : lengths) tokens += static_cast<double>(length);
    if (tokens == 0) return {.tokens = 1};
    const double pairs = over_layers(model, [&](int64_t window) {
        if (!c.document_mask)
            return tokens / static_cast<double>(c.packing_length) *
                   causal_pairs(0, static_cast<double>(c.packing_length), static_cast<double>(window));
        double sum = 0;
        for (const int64_t length : lengths)
            sum += causal_pairs(0, static_cast<double>(length), static_cast<double>(window));
        return sum;
    });
    return {.tokens = 1, .targets = static_cast<double>(learned) / tokens, .pairs = pairs / tokens};
}

StepAmounts amounts_of_token(const Session& s) {
    return amounts_of_token(s.config, s.model, s.train.store.lengths(), s.train.store.learned_count());
}

PredictedGpu predicted_gpu(const Config& c) {
    const bool here = has_gpu(c.device_index);
    const std::string name = here ? device_name(Device::cuda, c.device_index) : assumed_gpu;
    return {.name = name, .rates = gpu_rates(name), .assumed = !here};
}

GpuRates rates_to_compare(const Config& c, Device device) {
    const GpuRates rates = device == Device::cuda ? predicted_gpu(c).rates : GpuRates();
    return rates.known() ? rates : gpu_rates(assumed_gpu);
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
    if (s.config.fit == Fit::off) return;
    FoundFit& found = s.fit.emplace();
    const std::optional<MemoryRoom> room = least_room(memory_room(s.config, s.device, ranks, use), ranks);
    if (!room) {
        found.trouble = "no GPU is here, so that its memory is unknown; set gpu_memory (24GiB)";
        return;
    }
    const FitSubject subject = fit_subject(s, ranks);
    const Config given = s.config;
    found.device_room = room->device;
    found.host_room = room->host;
    found.given_bytes = memory_need(subject, given).device;
    if (const std::optional<Config> then = config_to_resume(given, ranks)) {
        const Config kept = with_settings_of(*then, given, s.given);
        if (found.resumed = memory_need(subject, kept).within(*room); found.resumed) s.config = kept;
    }
    if (!found.resumed) {
        FittedConfig fitted = fit_memory(given, s.given, subject, *room);
        if (fitted.fits)
            s.config = std::move(fitted.config);
        else
            found.trouble =
                "no settings that leave results as they are make it fit; " + text_of(advise_on_memory(s, ranks, *room));
    }
    found.settings = fitted_settings(given, s.config);
    for (const std::string& setting : found.settings) s.given.insert(setting.substr(0, setting.find('=')));
}

std::string fit_text(const Session& s, const Ranks& ranks) {
    const Config& c = s.config;
    if (!s.fit && c.gpu_memory.bytes == 0 && c.host_memory.bytes == 0) return {};
    const std::optional<MemoryRoom> room =
        s.fit ? MemoryRoom{s.fit->device_room, s.fit->host_room} : memory_room(c, s.device, ranks, SessionUse::plan);
    if (!room || room->device == 0) return s.fit ? s.fit->trouble : "";
    const MemoryNeed need = memory_need(fit_subject(s, ranks), c);
    std::string bytes = of_room(need.device, room->device);
    if (need.host > 0) bytes += fmt::format(" and {} of the host's", of_room(need.host, room->host));
    if (!need.within(*room)) return fmt::format("DOES NOT FIT: {}{}", bytes, s.fit ? "; " + s.fit->trouble : "");
    if (!s.fit || s.fit->settings.empty()) return "fits as it is: " + bytes;
    return fmt::format("{}: {}; {}without that {}", fmt::join(s.fit->settings, ", "), bytes,
                       s.fit->resumed ? "as before; " : "", human_bytes(s.fit->given_bytes));
}

void require_memory(const Session& s, const Ranks& ranks) {
    const Config& c = s.config;
    const std::optional<MemoryRoom> room = memory_room(c, s.device, ranks, SessionUse::plan);
    const MemoryNeed need = memory_need(fit_subject(s, ranks), c);
    const auto fail_for = [&](const char* key, const MemorySize& size, size_t needed, size_t left) {
        fail(Exit::memory, "the run needs {}{}, but {} {} leaves it {}; {}", human_bytes(needed),
             ranks.several() ? " on each rank" : "", key, exact_bytes(static_cast<size_t>(size.bytes)),
             human_bytes(left), text_of(advise_on_memory(s, ranks, *room)));
    };
    if (s.device == Device::cuda && c.gpu_memory.bytes > 0 && need.device > room->device)
        fail_for("gpu_memory", c.gpu_memory, need.device, room->device);
    const size_t of_host = s.device == Device::cpu ? need.device : need.host;
    if (c.host_memory.bytes > 0 && of_host > room->host) fail_for("host_memory", c.host_memory, of_host, room->host);
}

std::string step_time_text(const StepTime& time, const PredictedGpu& gpu) {
    std::string text = fmt::format("{} predicted for an {}{}", human_duration(time.total()), gpu.name,
                                   gpu.assumed ? " (none is here)" : "");
    const auto add = [&](double seconds, const char* what) {
        if (seconds >= 0.005 * time.total()) text += fmt::format(", {} of it {}", human_duration(seconds), what);
    };
    add(time.recomputed, "to recompute activations");
    add(time.optimizer_transfer, "for optimizer state in host memory");
    add(time.activation_transfer, "for inputs of blocks in host memory");
    return text;
}

}  // namespace colonnade
