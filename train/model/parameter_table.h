#pragma once
// The table of the model's parameters: what each one is, its Hugging Face name, its shape, when a model has it, and the
// view through which the ops of train/model/block.h read it. Everything else about parameters is derived from this
// table: their order in memory, the views, the names in files, initial numbers, weight decay, and which modules LoRA
// can adapt.
//
// A model family that has a further parameter, or names one differently, takes one entry here: several entries may have
// the same role as long as no model has two of them.

#include <array>
#include <span>
#include <string>
#include <vector>

#include "layers/low_rank.h"
#include "layers/quantised_matrix.h"
#include "train/model/model_config.h"

namespace colonnade {

/// What a parameter is in the model.
enum class Role : uint8_t {
    embedding,
    final_norm,
    lm_head,
    score_head,  ///< the head of a reward model
    input_norm,
    q,
    k,
    v,
    q_bias,
    k_bias,
    v_bias,
    q_norm,
    k_norm,
    o,
    o_bias,
    post_attention_norm,
    gate,
    up,
    gate_bias,
    up_bias,
    down,
    down_bias,
    lora_a,  ///< the adapters of a weight (train/model/lora.h)
    lora_b,
};

/// The linear layers of a block. Several modules share one projection if their weights are neighbours in memory: q, k
/// and v; gate and up.
enum class Projection : uint8_t { qkv, o, gate_up, down };
constexpr std::array all_projections = {Projection::qkv, Projection::o, Projection::gate_up, Projection::down};

/// One T for every projection.
template <typename T>
class PerProjection {
  public:
    T& operator[](Projection p) { return values_[static_cast<size_t>(p)]; }
    const T& operator[](Projection p) const { return values_[static_cast<size_t>(p)]; }

  private:
    std::array<T, all_projections.size()> values_{};
};

/// Views of weights or of gradients, as the ops of the model read them. An empty view: the model has no such parameter.
struct LinearParameters {
    Tensor weight;                           ///< [out, in]
    std::vector<QuantisedMatrix> quantised;  ///< in its place: the weights of its modules, one below the other
    Tensor bias;                             ///< [out]
    LowRank adapters;                        ///< train/model/lora.h
};
struct BlockParameters {
    Tensor input_norm;           ///< [hidden]
    Tensor q_norm, k_norm;       ///< [head_dim]
    Tensor post_attention_norm;  ///< [hidden]
    PerProjection<LinearParameters> linear;
};
struct ModelParameters {
    Tensor embedding;   ///< [vocab, hidden]
    Tensor final_norm;  ///< [hidden]
    Tensor head;        ///< [vocab, hidden]; the embedding itself if they are tied. [1, hidden] in a reward model
    std::vector<BlockParameters> blocks;
};

/// How a parameter starts.
enum class Init : uint8_t { normal, ones, zeros, uniform };

/// One entry of the table.
struct ParameterEntry {
    using Size = int64_t (*)(const ModelConfig&);
    using Exists = bool (*)(const ModelConfig&);
    /// A member of ModelParameters or of BlockParameters, or a part of a projection. Neighbours in memory that have the
    /// same view are one matrix, or one bias.
    struct View {
        Tensor ModelParameters::*of_model = nullptr;
        Tensor BlockParameters::*of_block = nullptr;
        Projection projection{};
        Tensor LinearParameters::*part = nullptr;
        bool operator==(const View&) const = default;
    };

    Role role;
    const char* name;  ///< in a block: what follows "model.layers.<layer>."
    View view;
    Size rows;
    Size columns = nullptr;  ///< null: a vector of `rows` elements
    Exists exists;           ///< whether a model has this parameter
    Init init = Init::ones;
    bool decay = false;

    /// The weight of a linear layer in a block: LoRA can adapt it.
    bool is_projection_weight() const { return view.part == &LinearParameters::weight; }
    /// "self_attn.q_proj" for "self_attn.q_proj.weight".
    std::string module_path() const;
    /// "q_proj", PEFT's name of that module.
    std::string module_name() const;
};

/// The entries in the order in which backward finishes their gradients: before the blocks, in every block, after them.
struct ParameterTable {
    std::span<const ParameterEntry> head, block, embedding;
};
const ParameterTable& parameter_table();

/// An entry with this role; all entries with one role have the same view.
const ParameterEntry& entry_of(Role role);

}  // namespace colonnade
