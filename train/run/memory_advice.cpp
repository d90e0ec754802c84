#include "train/run/memory_advice.h"

#include <fmt/ranges.h>

#include "engine/device/host_memory.h"
#include "engine/device/human_units.h"
#include "train/run/learner_options.h"

namespace colonnade {
namespace {

/// Whether the host has the memory that a config's runs on this machine would pin.
bool fits_the_host(const Config& c, const Session& session, const Ranks& ranks) {
    const size_t pinned = Learner::host_plan(session.model, learner_options(c, ranks), session.device).bytes();
    return pinned * static_cast<size_t>(ranks.local_size()) <= available_memory();
}

/// Changes the config and returns its settings; none if there is nothing left to change.
using Change = std::vector<std::string> (*)(Config& c, const Session& session, const Ranks& ranks);

const Change changes[] = {
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.gradient_checkpointing != Recompute::none) return {};
        c.gradient_checkpointing = Recompute::selective;
        return {"gradient_checkpointing=selective"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.gradient_checkpointing == Recompute::block) return {};
        c.gradient_checkpointing = Recompute::block;
        return {"gradient_checkpointing=block"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        const int64_t packs = c.per_device_train_batch_size;
        if (packs == 1 && c.per_device_eval_batch_size == 1) return {};
        c.per_device_train_batch_size = c.per_device_eval_batch_size = 1;
        c.gradient_accumulation_steps *= packs;
        return {"per_device_train_batch_size=1", "per_device_eval_batch_size=1",
                fmt::format("gradient_accumulation_steps={}", c.gradient_accumulation_steps)};
    },
    [](Config& c, const Session& session, const Ranks& ranks) -> std::vector<std::string> {
        if (session.device == Device::cpu || c.offload_activations.count == BlockCount::all) return {};
        Config all = c;
        all.offload_activations.count = BlockCount::all;
        if (!fits_the_host(all, session, ranks)) return {};
        c = all;
        return {"offload_activations=true"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.head_chunk <= 256) return {};
        c.head_chunk = 256;
        return {"head_chunk=256"};
    },
    [](Config& c, const Session&, const Ranks& ranks) -> std::vector<std::string> {
        if (!ranks.several() || c.zero_stage == 1 || c.optim == Optim::muon) return {};
        c.zero_stage = 1;
        return {"zero_stage=1"};
    },
    [](Config& c, const Session& session, const Ranks& ranks) -> std::vector<std::string> {
        if (session.device == Device::cpu || c.optim == Optim::muon || c.offload_optimizer.value == 1) return {};
        Config all = c;
        all.offload_optimizer = {1};
        if (!fits_the_host(all, session, ranks)) return {};
        c = all;
        return {"offload_optimizer=true"};
    },
    [](Config& c, const Session& session, const Ranks&) -> std::vector<std::string> {
        if (session.device == Device::cpu || c.optim != Optim::adamw || c.optim_dtype == DType::bf16) return {};
        c.optim_dtype = DType::bf16;
        return {"optim_dtype=bfloat16"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.optim != Optim::adamw) return {};
        c.optim = Optim::adamw_8bit;
        c.optim_dtype = DType::f32;
        return {"optim=adamw_8bit"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.packing_length == c.max_length) return {};
        c.packing_length = c.max_length;
        return {fmt::format("packing_length={}", c.packing_length)};
    },
    [](Config& c, const Session& session, const Ranks&) -> std::vector<std::string> {
        if (c.finetuning_type == Finetuning::lora || c.model) return {};
        if (c.optim == Optim::muon || !session.text.folder.added.empty()) return {};
        c.finetuning_type = Finetuning::lora;
        c.lora_rank = 16;
        c.lora_alpha = 32;
        c.lora_target = {lora_modules().begin(), lora_modules().end()};
        if (c.stage == Stage::rm) c.modules_to_save = {"score"};
        return {"finetuning_type=lora"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.finetuning_type != Finetuning::lora || c.base_quantization != BaseQuantization::none) return {};
        c.base_quantization = BaseQuantization::fp8;
        return {"base_quantization=fp8"};
    },
    [](Config& c, const Session&, const Ranks&) -> std::vector<std::string> {
        if (c.finetuning_type != Finetuning::lora || c.base_quantization == BaseQuantization::nf4) return {};
        c.base_quantization = BaseQuantization::nf4;
        return {"base_quantization=nf4"};
    },
};
constexpr size_t change_count = std::size(changes);

}  // namespace

MemoryAdvice advise_on_memory(const Session& session, const Ranks& ranks, size_t available) {
    std::array<bool, change_count> wanted{};
    const auto with_changes = [&] {
        Config config = session.config;
        MemoryAdvice advice;
        for (size_t i = 0; i < change_count; ++i)
            if (wanted[i])
                for (std::string& setting : changes[i](config, session, ranks))
                    advice.settings.push_back(std::move(setting));
        LearnerOptions options = learner_options(config, ranks);
        options.density = density_of(session);
        advice.bytes = Learner::plan(session.model, options, session.device).bytes();
        advice.fits = advice.bytes <= available;
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
        if (best.fits ? without.fits : without.bytes <= best.bytes)
            best = std::move(without);
        else
            wanted[i] = true;
    }
    return best;
}

std::string text_of(const MemoryAdvice& advice) {
    const std::string bytes = human_bytes(advice.bytes);
    if (advice.fits) return fmt::format("this fits: {} ({})", fmt::join(advice.settings, " "), bytes);
    if (advice.settings.empty()) return "no setting makes it smaller: choose a smaller model or a larger device";
    return fmt::format("no settings make it fit; {} need the least, {}", fmt::join(advice.settings, " "), bytes);
}

}  // namespace colonnade
