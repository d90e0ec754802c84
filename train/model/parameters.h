#pragma once
// Parameters: every weight of the model in one flat buffer, in the order in which backward finishes their gradients, so
// that gradient buckets, optimizer state and shards are plain slices. The table in train/model/parameter_table.h says
// which parameters a model has.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "layers/gradient.h"
#include "train/model/parameter_table.h"

namespace colonnade {

/// The layer of the embedding. Blocks have layers 0, 1, ...; the final norm and the head have num_hidden_layers.
constexpr int64_t embedding_layer = -1;

struct Parameter {
    std::string name;  ///< "model.layers.0.self_attn.q_proj.weight"
    std::vector<int64_t> shape;
    int64_t begin = 0;  ///< offset in the flat buffer, in elements
    bool decay = true;  ///< weight decay: on for matrices, off for norms and biases
    Init init = Init::normal;
    Role role{};
    int64_t layer = 0;              ///< embedding_layer: the embedding; num_hidden_layers: the final norm and the head
    std::optional<Role> adapted{};  ///< for lora_a and lora_b: the weight that they adapt
    uint64_t stream = 0;            ///< Philox stream of its initial numbers; set by ParameterList::add()

    int64_t size() const;
    int64_t end() const { return begin + size(); }
    bool in_block() const;
    /// Whether it is part of an adapter. A head that is trained together with adapters is not.
    bool is_adapter() const { return role == Role::lora_a || role == Role::lora_b; }
};

/// A list of parameters with their places in the flat buffer.
class ParameterList {
  public:
    ParameterList() = default;
    /// The parameters of a model; a pure function of its config.
    explicit ParameterList(const ModelConfig& config);

    const std::vector<Parameter>& all() const { return all_; }
    int64_t size() const { return size_; }  ///< elements of the flat buffer, with gaps for alignment (they stay 0)
    int64_t count() const;                  ///< trained numbers: without the gaps

    /// Finds the parameter with a role. All of these return null if the list has none.
    const Parameter* find(Role role) const;
    /// Finds the one in a layer; for lora_a and lora_b, the one that adapts this weight.
    const Parameter* find(Role role, int64_t layer, std::optional<Role> adapted = {}) const;
    /// Finds a parameter by its name in files.
    const Parameter* named(std::string_view name) const;
    /// The head, if it has a matrix of its own.
    const Parameter* head() const;

    /// Appends a parameter; its `begin` becomes the end of the list.
    void add(Parameter parameter);
    /// Lets the next parameter begin at a multiple of 64 elements.
    void align();
    /// Appends a parameter of a model: beside the one before it if both are parts of one matrix or bias, else aligned.
    void append(const Parameter& parameter);

  private:
    std::vector<Parameter> all_;
    int64_t size_ = 0;
};

/// The part of a flat buffer that belongs to a parameter: [size], and in its own shape.
Tensor slice_of(const Tensor& flat, const Parameter& parameter);
Tensor view_of(const Tensor& flat, const Parameter& parameter);

/// The elements of a layer in the flat buffer, with the gap behind them.
struct LayerRange {
    int64_t layer, begin, end;
};
/// Those of all layers that have a parameter in the list, in the order of the buffer.
std::vector<LayerRange> layer_ranges(const ParameterList& list);

/// Finds elements [begin, end) of a flat buffer, which belong to one layer.
using FlatElements = std::function<Tensor(int64_t begin, int64_t end)>;
/// Adds the views of a list's parameters to those of a model. A tied head gets none.
void add_views(const ParameterList& list, const FlatElements& elements, ModelParameters& model);
void add_views(const ParameterList& list, const Tensor& flat, ModelParameters& model);
/// Adds the quantised weights of a list's parameters, which are in the same order.
void add_quantised(const ParameterList& list, const std::vector<QuantisedMatrix>& matrices, ModelParameters& model);
/// Views of all parameters of a model. If the head is tied, its view is the embedding's.
ModelParameters view_parameters(const ParameterList& list, const Tensor& flat);

/// Where backward puts gradients.
struct ModelGradients {
    const ModelParameters& views;  ///< empty view: the gradient is not computed
    /// Weights of linear layers and the head. The first micro-step of a step overwrites, which saves clearing and
    /// reading them. All other gradients accumulate.
    Grad matrices = Grad::accumulate;
    bool embedding = true;             ///< false: the caller adds the gradient of the embedding itself
    int64_t lowest = embedding_layer;  ///< the lowest layer that has a view: backward ends there
};
/// The lowest layer with a parameter in the list.
int64_t lowest_layer(const ParameterList& list);
/// Whether backward writes this gradient as ModelGradients::matrices says.
bool is_overwritten(const Parameter& parameter, const ModelConfig& config);

struct Initialization {
    uint64_t seed = 0;
    double range = 0.02;           ///< standard deviation of normal numbers: ModelConfig::initializer_range
    int64_t distinct = INT64_MAX;  ///< a larger matrix repeats its first `distinct` numbers
};
/// Fills `into` with the initial numbers of a parameter: normal for matrices, ones for norms, zeros for biases; uniform
/// in +-1 / sqrt(in_features) for A of an adapter, zeros for B. They depend only on the seed and the place in
/// the list.
void initialize(const Parameter& parameter, const Initialization& how, const Tensor& into);
/// The same for a whole list; clears the gaps.
void initialize(const ParameterList& list, const Initialization& how, const Tensor& flat);

}  // namespace colonnade
