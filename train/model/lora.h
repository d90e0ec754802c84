#pragma once
// LoRA (arXiv 2106.09685): the model stays frozen; low-rank pairs beside its linear layers are what is learned,
//
//     W' = W + scale * B A,   scale = alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732)
//
// A starts uniform in +-1 / sqrt(in_features) (Kaiming with a = sqrt(5)), B at zero: at first the model is the base. This
// file says which pairs there are, places them in a flat buffer of their own, and merges them. The op is
// layers/low_rank.h, their files are train/folders/adapter_folder.h.

#include <set>

#include "train/model/parameters.h"

namespace colonnade {

struct LoraSettings {
    int64_t rank = 8;
    double alpha = 16;
    double dropout = 0;  ///< of the adapters' input, while training
    bool rslora = false;
    std::set<std::string> targets{};  ///< "q_proj", ...: at least one of lora_modules()
    /// The head is trained whole, too, from the base's on: PEFT's modules_to_save. A language model whose head is its
    /// embedding has none to train; a reward model always trains its own.
    bool head = false;

    double scale() const;
    /// Columns of h in layers/low_rank.h: rank times the targets that the product holds.
    int64_t width(Product product) const;
    bool operator==(const LoraSettings&) const = default;
};

/// The linear layers of a block that can be adapted, by PEFT's names: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
/// down_proj.
const std::vector<std::string>& lora_modules();

/// "model.layers.0.self_attn.q_proj.lora_A.weight" [rank, in] and "...lora_B.weight" [out, rank], in the order in which
/// backward finishes them. The A of the layers that share a product are one matrix. With settings.head the model's own
/// "lm_head.weight", or "score.weight", comes first.
ParameterList lora_parameters(const ModelConfig& config, const LoraSettings& settings);

/// Adds views of the pairs in `flat` (weights or gradients) to the blocks of `model`; puts a head of theirs in its place.
void view_lora(const ModelConfig& config, const LoraSettings& settings, const ParameterList& list, const Tensor& flat,
               ModelParameters& model);

/// A pair's parameter, and not one of the model that is trained whole.
bool is_low_rank(const Parameter& parameter);

/// Fresh pairs, a pure function of the seed; zeros for a head.
void initialize_lora(const ParameterList& list, uint64_t seed, const Tensor& flat);

/// Adds scale * B A to the weights of the model and replaces a head. Both in host memory and of one dtype.
void merge_lora(const LoraSettings& settings, const ParameterList& list, const Tensor& flat, const ParameterList& model,
                const Tensor& weights);

}  // namespace colonnade
