#pragma once
// Layer freezing: some parameters of a model are trained, the others stay as they are, without gradient, optimizer state
// or master. The backward pass ends at the lowest layer that has a trained parameter.
//
// Two ways to say which are trained: LLaMA-Factory's (layers, modules, extra), and Axolotl's (patterns: a list of
// regular expressions). Matrices that one product reads together, q_proj with k_proj and v_proj, gate_proj with
// up_proj, are trained or frozen together.

#include <set>
#include <string>
#include <vector>

#include "train/model/parameters.h"

namespace colonnade {

struct FreezeSettings {
    int64_t layers = 0;  ///< the last n blocks, or the first -n
    /// What of these blocks, by the name behind "model.layers.0.": "self_attn", "mlp", "mlp.down_proj",
    /// "input_layernorm"; "all" for everything.
    std::set<std::string> modules{};
    /// What outside of blocks: "embed_tokens", "norm", "lm_head". The head of a reward model is always trained.
    std::set<std::string> extra{};
    /// Instead of all above: ECMAScript regular expressions, which match at the begin of the names of parameters.
    std::vector<std::string> patterns{};
    bool operator==(const FreezeSettings&) const = default;
};

struct SplitParameters {
    ParameterList trained, frozen;  ///< both in the order in which backward finishes gradients
};
/// Throws Exit::config if a setting matches no parameter, or if matrices that belong together are split.
SplitParameters split_parameters(const ModelConfig& config, const FreezeSettings& settings);

}  // namespace colonnade
