#pragma once
// Parameters: every weight of the model in one flat buffer, in the order in which backward finishes their gradients, so
// that gradient buckets, optimizer state and shards are plain slices. A parameter has its Hugging Face name; q, k and v
// (and gate and up) lie side by side, so that each group is one matrix to a matmul.

#include <array>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "layers/gradient.h"
#include "layers/low_rank.h"
#include "train/model/model_config.h"

namespace colonnade {

struct Parameter {
    std::string name;  ///< "model.layers.0.self_attn.q_proj.weight"
    std::vector<int64_t> shape;
    int64_t begin = 0;  ///< offset in the flat buffer, in elements
    bool decay = true;  ///< weight decay: matrices yes, norms and biases no
    int64_t size() const;
};

/// A list of parameters and where each lies.
class ParameterList {
  public:
    ParameterList() = default;
    /// Those of a model; a pure function of its config.
    explicit ParameterList(const ModelConfig& config);
    const std::vector<Parameter>& all() const { return all_; }
    const Parameter& find(const std::string& name) const;
    int64_t size() const { return size_; }  ///< elements of the flat buffer, gaps for alignment included (they stay 0)
    int64_t count() const;                  ///< learned numbers, gaps apart

    /// Appends one, right behind the last.
    void add(std::string name, std::vector<int64_t> shape);
    /// The next one begins at a multiple of 64 elements.
    void align();

  private:
    std::vector<Parameter> all_;
    int64_t size_ = 0;
};

/// The matrix products of a block. Several linear layers share one where their weights lie side by side.
enum class Product : uint8_t { qkv, o, gate_up, down };
constexpr size_t products = 4;

/// Views into a flat buffer (weights or gradients) as the model's ops want them.
struct BlockParameters {
    Tensor input_norm;             ///< [hidden]
    Tensor qkv, qkv_bias;          ///< [query + 2 kv widths, hidden]; bias may be empty
    Tensor q_norm, k_norm;         ///< [head_dim], or empty
    Tensor o, o_bias;              ///< [hidden, query width]
    Tensor post_attention_norm;    ///< [hidden]
    Tensor gate_up, gate_up_bias;  ///< [2 * intermediate, hidden]
    Tensor down, down_bias;        ///< [hidden, intermediate]
    /// By Product; each may be empty (train/model/lora.h).
    std::array<LowRank, products> adapters;
};
struct ModelParameters {
    Tensor embedding;   ///< [vocab, hidden]
    Tensor final_norm;  ///< [hidden]
    Tensor head;        ///< [vocab, hidden]; the embedding itself where tied. Of a reward model [1, hidden]
    std::vector<BlockParameters> blocks;
};
/// Views of gradients, and how the ops that make them leave those of matrices and the head: overwritten by the first
/// micro-step of a step, which saves clearing and reading them. All others add up, and begin at zero.
struct ModelGradients : ModelParameters {
    Grad matrices = Grad::accumulate;
};
ModelParameters view_parameters(const ModelConfig& config, const ParameterList& list, const Tensor& flat);

/// Normal(0, initializer_range) matrices, ones for norms, zeros for biases; a pure function of the seed. A matrix larger
/// than `distinct` repeats its first so many numbers.
void initialize(const ModelConfig& config, const ParameterList& list, uint64_t seed, const Tensor& flat,
                int64_t distinct = INT64_MAX);

/// The weights of a Hugging Face folder. Missing, unexpected and misshapen tensors are listed at once (Exit::data).
/// `...rotary_emb.inv_freq` and a tied lm_head.weight are skipped. A reward model may begin as a language model: then
/// lm_head.weight is skipped, too, and score.weight may be missing.
class WeightFolder {
  public:
    WeightFolder(const ParameterList& list, const ModelConfig& config, const std::string& folder);
    bool has(const Parameter& parameter) const { return reader_.find(parameter.name) != nullptr; }
    /// `into`: as many elements, contiguous, in host memory.
    void read(const Parameter& parameter, const Tensor& into) const {
        reader_.read(*reader_.find(parameter.name), into);
    }

  private:
    SafetensorsReader reader_;
};
/// Reads every parameter; a missing score.weight keeps what `flat` holds.
void load_weights(const ParameterList& list, const ModelConfig& config, const std::string& folder, const Tensor& flat);

/// (name, view) of every parameter in a flat buffer, embedding first, head last.
std::vector<NamedTensor> named_tensors(const ParameterList& list, const Tensor& flat);

}  // namespace colonnade
