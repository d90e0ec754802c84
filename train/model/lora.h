#pragma once
// LoRA (arXiv 2106.09685): the model is frozen; low-rank adapters of its linear layers are trained,
//
//     W' = W + scale * B A,   scale = alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732)
//
// A starts uniform in +-1 / sqrt(in_features) (Kaiming with a = sqrt(5)) and B at zero, so that the model starts as the
// base. This file lists the adapters, places them in a flat buffer of their own, and merges them into a model. The op
// is in layers/low_rank.h, the files of adapters in train/folders/adapter_folder.h.

#include <set>

#include "train/model/parameters.h"

namespace colonnade {

struct LoraSettings {
    static constexpr int64_t most_rank = 1 << 14;  ///< with it the size of the adapters of any model fits int64_t
    int64_t rank = 8;
    double alpha = 16;
    double dropout = 0;  ///< on the input of the adapters, in training
    bool rslora = false;
    std::set<std::string> targets{};  ///< "q_proj", ...: at least one of lora_modules()
    /// The head is trained whole, too, starting from that of the base: PEFT's modules_to_save. A language model with a
    /// tied head has none to train; a reward model always trains its head.
    bool head = false;

    double scale() const;
    /// Columns of h in layers/low_rank.h: the rank times the number of targets in the projection.
    int64_t width(Projection projection) const;
    bool operator==(const LoraSettings&) const = default;
};

/// The modules of a block that can be adapted, by PEFT's names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
/// down_proj.
const std::vector<std::string>& lora_modules();

/// "model.layers.0.self_attn.q_proj.lora_A.weight" [rank, in] and "...lora_B.weight" [out, rank], in the order in which
/// backward finishes their gradients. In a projection all A are one matrix. With settings.head the model's head comes
/// first, under its own name.
ParameterList lora_parameters(const ModelConfig& config, const LoraSettings& settings);

/// Adds views of the adapters in `flat` (weights or gradients) to the blocks of `model`. A head in the list replaces
/// the head of `model`.
void view_lora(const ModelConfig& config, const LoraSettings& settings, const ParameterList& list, const Tensor& flat,
               ModelParameters& model);

/// Adds scale * B A to the weights of a model, and replaces its head if the list has one. Both buffers are in host
/// memory and of one dtype.
void merge_lora(const LoraSettings& settings, const ParameterList& list, const Tensor& flat, const ParameterList& model,
                const Tensor& weights);

}  // namespace colonnade
