#include "train/run/memory_advice.h"

#include <fmt/ranges.h>

#include "engine/device/human_units.h"

namespace colonnade {
namespace {

/// Changes the config and returns the setting; none if there is nothing left to change.
using Change = std::string (*)(Config& c, const FitSubject& subject);

const Change changes[] = {
    [](Config& c, const FitSubject& subject) -> std::string {
        if (subject.device == Device::cpu || c.optim != Optim::adamw || c.optim_dtype == DType::bf16) return {};
        c.optim_dtype = DType::bf16;
        return "optim_dtype=bfloat16";
    },
    [](Config& c, const FitSubject&) -> std::string {
        if (c.optim != Optim::adamw) return {};
        c.optim = Optim::adamw_8bit;
        c.optim_dtype = DType::f32;
        return "optim=adamw_8bit";
    },
    [](Config& c, const FitSubject&) -> std::string {
        if (c.packing_length == c.max_length) return {};
        c.packing_length = c.max_length;
        return fmt::format("packing_length={}", c.packing_length);
    },
    [](Config& c, const FitSubject& subject) -> std::string {
        if (c.finetuning_type == Finetuning::lora || c.optim == Optim::muon || !subject.can_adapt) return {};
        c.finetuning_type = Finetuning::lora;
        c.lora_rank = 16;
        c.lora_alpha = 32;
        c.lora_target = {lora_modules().begin(), lora_modules().end()};
        if (c.stage == Stage::rm) c.modules_to_save = {"score"};
        return "finetuning_type=lora";
    },
    [](Config& c, const FitSubject&) -> std::string {
        if (c.finetuning_type != Finetuning::lora || c.base_quantization != BaseQuantization::none) return {};
        c.base_quantization = BaseQuantization::fp8;
        return "base_quantization=fp8";
    },
    [](Config& c, const FitSubject&) -> std::string {
        if (c.finetuning_type != Finetuning::lora || c.base_quantization == BaseQuantization::nf4) return {};
        c.base_quantization = BaseQuantization::nf4;
        return "base_quantization=nf4";
    },
};
constexpr size_t change_count = std::size(changes);

}  // namespace

MemoryAdvice advise_on_memory(const Config& given, const FitSubject& subject, const MemoryRoom& room) {
    std::array<bool, change_count> wanted{};
    const auto with_changes = [&] {
        Config config = given;
        std::vector<std::string> settings;
        for (size_t i = 0; i < change_count; ++i)
            if (wanted[i])
                if (std::string setting = changes[i](config, subject); !setting.empty())
                    settings.push_back(std::move(setting));
        const FittedConfig fitted = fit_memory(config, {}, subject, room);
        MemoryAdvice advice{
            .settings = fitted_settings(config, fitted.config), .need = fitted.need, .fits = fitted.fits};
        advice.settings.insert(advice.settings.end(), settings.begin(), settings.end());
        return advice;
    };
    MemoryAdvice best = with_changes();
    for (size_t i = 0; i < change_count && !best.fits; ++i) {
        wanted[i] = true;
        best = with_changes();
    }
    for (size_t i = 0; i < change_count; ++i) {  // what can be left out
        if (!wanted[i]) continue;
        wanted[i] = false;
        MemoryAdvice without = with_changes();
        if (best.fits ? without.fits : without.need.device <= best.need.device)
            best = std::move(without);
        else
            wanted[i] = true;
    }
    return best;
}

std::string text_of(const MemoryAdvice& advice) {
    const std::string bytes = human_bytes(advice.need.device);
    if (advice.fits) return fmt::format("this fits: {} ({})", fmt::join(advice.settings, " "), bytes);
    if (advice.settings.empty()) return "no setting makes it smaller: choose a smaller model or a larger device";
    return fmt::format("no settings make it fit; {} need the least, {}", fmt::join(advice.settings, " "), bytes);
}

}  // namespace colonnade
