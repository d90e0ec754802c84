#include "train/run/find_fit.h"

#include <algorithm>

#include "engine/device/gpu.h"
#include "engine/device/host_memory.h"
#include "engine/device/human_units.h"
#include "train/config/cuda_memory.h"
#include "train/run/memory_advice.h"

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

/// The config with the settings of another one of the same run, as far as fit could choose them now.
Config with_settings_of(const Config& then, const Config& now, const std::set<std::string>& given,
                        const FitSubject& subject) {
    Config config = now;
    for (const MemoryOption& option : memory_options()) {
        if (given.contains(option.keys.front())) continue;
        Config copied = config;
        option.copy(copied, then);
        if (given.contains("per_device_eval_batch_size"))
            copied.per_device_eval_batch_size = now.per_device_eval_batch_size;
        const auto is_copy = [&](Config step) {
            step.per_device_eval_batch_size = copied.per_device_eval_batch_size;
            return fitted_settings(step, copied).empty();
        };
        if (std::ranges::any_of(option.steps(config, subject), is_copy)) config = std::move(copied);
    }
    return config;
}

/// As YAML; a batch of evaluation follows that of training.
std::string settings_text(const std::vector<std::string>& settings) {
    std::string text;
    for (const std::string& setting : settings) {
        if (setting.starts_with("per_device_eval_batch_size=")) continue;
        const size_t equals = setting.find('=');
        text +=
            fmt::format("{}{}: {}", text.empty() ? "" : ", ", setting.substr(0, equals), setting.substr(equals + 1));
    }
    return text;
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

PredictedGpu predicted_gpu(const Config& c) {
    const bool here = has_gpu(c.device_index);
    const std::string name = here ? device_name(Device::cuda, c.device_index) : assumed_gpu;
    return {.name = name, .rates = gpu_rates(name), .assumed = !here};
}

GpuRates rates_to_compare(const Config& c, Device device) {
    const GpuRates rates = device == Device::cuda ? predicted_gpu(c).rates : GpuRates();
    return rates.known() ? rates : gpu_rates(assumed_gpu);
}

/// Advice to have more host memory, if that suffices.
static std::string more_host_text(const Config& config, const std::set<std::string>& given, const FitSubject& subject,
                                  const MemoryRoom& room) {
    const FittedConfig fitted = fit_memory(config, given, subject, {.device = room.device, .host = SIZE_MAX});
    if (subject.device == Device::cpu || !fitted.fits) return {};
    return fmt::format("with {} of host memory instead of {} this fits: {}; without it ", human_bytes(fitted.need.host),
                       human_bytes(room.host), settings_text(fitted_settings(config, fitted.config)));
}

FoundFit find_fit(Config& config, const std::set<std::string>& given, const FitSubject& subject,
                  const std::optional<MemoryRoom>& room, const std::optional<Config>& then) {
    FoundFit found{.room = room};
    if (!room) {
        found.trouble = "no GPU is here, so that its memory is unknown; set gpu_memory (24GiB)";
        return found;
    }
    const Config before = config;
    found.given_bytes = memory_need(subject, before).device;
    if (then) {
        const Config kept = with_settings_of(*then, before, given, subject);
        found.resumed = memory_need(subject, kept).within(*room);
        if (found.resumed) config = kept;
    }
    if (!found.resumed) {
        FittedConfig fitted = fit_memory(before, given, subject, *room);
        if (fitted.fits)
            config = std::move(fitted.config);
        else
            found.trouble =
                more_host_text(before, given, subject, *room) + text_of(advise_on_memory(before, subject, *room));
    }
    found.settings = fitted_settings(before, config);
    return found;
}

std::string fit_text(const FoundFit* found, const Config& c, const FitSubject& subject,
                     const std::optional<MemoryRoom>& room) {
    if (!room) return found ? found->trouble : "";
    const MemoryNeed need = memory_need(subject, c);
    std::string bytes = of_room(need.device, room->device);
    if (need.host > 0) bytes += fmt::format(" and {} of the host's", of_room(need.host, room->host));
    if (!need.within(*room)) return fmt::format("DOES NOT FIT: {}{}", bytes, found ? "; " + found->trouble : "");
    if (!found || found->settings.empty()) return "fits as it is: " + bytes;
    return fmt::format("{}: {}; {}without that {}", settings_text(found->settings), bytes,
                       found->resumed ? "as before; " : "", human_bytes(found->given_bytes));
}

void require_memory(const Config& c, const FitSubject& subject, const Ranks& ranks) {
    const std::optional<MemoryRoom> room = memory_room(c, subject.device, ranks, SessionUse::plan);
    const MemoryNeed need = memory_need(subject, c);
    const auto fail_for = [&](const char* key, const MemorySize& size, size_t needed, size_t left) {
        fail(Exit::memory, "the run needs {}{}, but {} {} leaves it {}; {}", human_bytes(needed),
             ranks.several() ? " on each rank" : "", key, exact_bytes(static_cast<size_t>(size.bytes)),
             human_bytes(left), text_of(advise_on_memory(c, subject, *room)));
    };
    if (subject.device == Device::cuda && c.gpu_memory.bytes > 0 && need.device > room->device)
        fail_for("gpu_memory", c.gpu_memory, need.device, room->device);
    const size_t of_host = subject.device == Device::cpu ? need.device : need.host;
    if (c.host_memory.bytes > 0 && of_host > room->host) fail_for("host_memory", c.host_memory, of_host, room->host);
}

std::string step_time_text(const StepTime& time, const PredictedGpu& gpu) {
    std::string text = fmt::format("{} predicted {}", human_duration(time.total()),
                                   gpu.assumed ? fmt::format("at the rates of an {} (no GPU is here)", gpu.name)
                                               : fmt::format("on this {}", gpu.name));
    const auto add = [&](double seconds, const char* what) {
        if (seconds >= 0.005 * time.total()) text += fmt::format(", {} of it {}", human_duration(seconds), what);
    };
    add(time.recomputed, "to recompute activations");
    add(time.optimizer_transfer, "for optimizer state in host memory");
    add(time.weight_transfer, "for weights and gradients in host memory");
    add(time.activation_transfer, "for inputs of blocks in host memory");
    return text;
}

}  // namespace colonnade
