#include "train/model/gguf_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "layers/rope.h"
#include "train/model/gguf_names.h"

namespace colonnade {
namespace {

constexpr std::string_view q_suffix = "self_attn.q_proj", k_suffix = "self_attn.k_proj";

// --- Metadata --------------------------------------------------------------------------------------------------------

constexpr const char* architectures[] = {"llama", "qwen2", "qwen3"};

std::string architecture_of(const GgufReader& file) {
    if (file.metadata().text("general.type").value_or("model") == "adapter")
        fail(Exit::data, "{}: holds adapters, not a model", file.path());
    const std::string found = file.metadata().text("general.architecture").value_or("");
    if (std::ranges::find(architectures, found) == std::end(architectures))
        fail(Exit::data, "{}: general.architecture '{}' is not supported; expected one of {}", file.path(), found,
             fmt::join(architectures, ", "));
    return found;
}

// The keys "<architecture>.<name>" of a file.
class ArchitectureKeys {
  public:
    explicit ArchitectureKeys(const GgufReader& file) : file_(file), architecture_(architecture_of(file)) {}

    const GgufReader& file() const { return file_; }
    const std::string& architecture() const { return architecture_; }
    std::string key(std::string_view name) const { return fmt::format("{}.{}", architecture_, name); }

    int64_t integer(std::string_view name, std::optional<int64_t> otherwise = {}) const {
        return value(name, file_.metadata().integer(key(name)), otherwise);
    }
    double number(std::string_view name, std::optional<double> otherwise = {}) const {
        return value(name, file_.metadata().shortest_number(key(name)), otherwise);
    }
    std::string text(std::string_view name, const std::string& otherwise) const {
        return file_.metadata().text(key(name)).value_or(otherwise);
    }

  private:
    template <typename T>
    T value(std::string_view name, std::optional<T> found, std::optional<T> otherwise) const {
        if (!found && !otherwise) fail(Exit::data, "{}: no key '{}'", file_.path(), key(name));
        return found ? *found : *otherwise;
    }

    const GgufReader& file_;
    std::string architecture_;
};

// Settings that change the model and that a config.json of these families does not have.
struct NeutralValue {
    const char* name;
    double value;
};
constexpr NeutralValue neutral_values[] = {
    {"expert_count", 0},
    {"attention.sliding_window", 0},
    {"rope.scale_linear", 1},
    {"rope.scaling.yarn_ext_factor", 1},
    {"rope.scaling.yarn_attn_factor", 1},
    {"rope.scaling.yarn_log_multiplier", 0},
    {"logit_scale", 1},
    {"embedding_scale", 1},
    {"residual_scale", 1},
};

void refuse_other_settings(const ArchitectureKeys& keys, int64_t head_dim) {
    const auto expect = [&](const char* name, double neutral) {
        if (const double found = keys.number(name, neutral); found != neutral)
            fail(Exit::data, "{}: {} is {}, which is not supported", keys.file().path(), keys.key(name), found);
    };
    for (const auto& [name, neutral] : neutral_values) expect(name, neutral);
    if (keys.text("rope.scaling.type", "none") != "yarn") expect("rope.scaling.attn_factor", 1);
    for (const char* name : {"attention.value_length", "rope.dimension_count"})
        if (const int64_t found = keys.integer(name, head_dim); found != head_dim)
            fail(Exit::data, "{}: {} is {}, expected the size of a head, {}", keys.file().path(), keys.key(name), found,
                 head_dim);
}

// The scaling whose divisors of the frequencies rope_freqs.weight holds. Its other three numbers are those of our own
// keys, or else Llama 3's, which all known models with such a tensor use; the comparison shows whether this one does.
Json llama3_scaling(const ArchitectureKeys& keys, const TensorInfo& tensor, int64_t head_dim, double theta) {
    const GgufReader& file = keys.file();
    if (tensor.shape != std::vector<int64_t>{head_dim / 2})
        fail(Exit::data, "{}: tensor '{}' is {}, expected [{}]", file.path(), gguf_rope_tensor,
             shape_text(tensor.shape), head_dim / 2);
    std::vector<float> divisors(static_cast<size_t>(head_dim / 2));
    file.read(tensor, view_of(divisors));
    const auto number = [&](const char* name, double otherwise) {
        const std::string key = fmt::format("colonnade.rope_scaling.{}", name);
        const double value = file.metadata().shortest_number(key).value_or(otherwise);
        if (!(value > 0 && value <= INT32_MAX))
            fail(Exit::data, "{}: {} is {}, expected a number above 0", file.path(), key, value);
        return value;
    };
    const RopeScaling scaling{.kind = RopeScaling::Kind::llama3,
                              .factor = number("factor", std::ranges::max(divisors)),
                              .original_max_position = number("original_max_position_embeddings", 8192),
                              .low_freq_factor = number("low_freq_factor", 1),
                              .high_freq_factor = number("high_freq_factor", 4)};
    const auto plain = rope_frequencies(head_dim, theta, {}), scaled = rope_frequencies(head_dim, theta, scaling);
    for (size_t i = 0; i < divisors.size(); ++i) {
        const double expected = plain.inverse[i] / scaled.inverse[i];
        if (!(std::abs(divisors[i] - expected) <= 1e-4 * expected))
            fail(Exit::data, "{}: tensor '{}' holds {} at {}, Llama 3's scaling by {} has {}", file.path(),
                 gguf_rope_tensor, divisors[i], i, scaling.factor, expected);
    }
    return {{"rope_type", "llama3"},
            {"factor", scaling.factor},
            {"low_freq_factor", scaling.low_freq_factor},
            {"high_freq_factor", scaling.high_freq_factor},
            {"original_max_position_embeddings", std::llround(scaling.original_max_position)}};
}

// Null without scaling.
Json rope_scaling(const ArchitectureKeys& keys, int64_t head_dim, double theta) {
    const std::string type = keys.text("rope.scaling.type", "none");
    const TensorInfo* divisors = keys.file().find(gguf_rope_tensor);
    if (divisors && type == "none") return llama3_scaling(keys, *divisors, head_dim, theta);
    if (type == "none") return nullptr;
    if (divisors || (type != "linear" && type != "yarn"))
        fail(Exit::data, "{}: {} is '{}'{}, which is not supported", keys.file().path(), keys.key("rope.scaling.type"),
             type, divisors ? " beside rope_freqs.weight" : "");
    Json scaling = {{"rope_type", type}, {"factor", keys.number("rope.scaling.factor")}};
    if (type == "yarn") {
        scaling["original_max_position_embeddings"] = keys.integer("rope.scaling.original_context_length");
        scaling["beta_fast"] = keys.number("rope.scaling.yarn_beta_fast", 32);
        scaling["beta_slow"] = keys.number("rope.scaling.yarn_beta_slow", 1);
        // Of llama.cpp's own factor, 0.1 ln(factor) + 1.
        if (const double share = keys.number("rope.scaling.attn_factor", 1); share != 1)
            scaling["attention_factor"] = share * (0.1 * std::log(keys.number("rope.scaling.factor")) + 1);
    }
    return scaling;
}

// Some files write 2^32 - 1 for none.
void add_token_ids(const GgufMetadata& metadata, Json& config) {
    const auto special = [&](const char* name) {
        const auto id = metadata.integer(fmt::format("tokenizer.ggml.{}_token_id", name));
        return id == UINT32_MAX ? std::nullopt : id;
    };
    if (const auto id = special("bos")) config["bos_token_id"] = *id;
    if (const auto id = special("padding")) config["pad_token_id"] = *id;
    Json ends = Json::array();
    for (const char* name : {"eos", "eot", "eom"})
        if (const auto id = special(name); id && std::ranges::find(ends, Json(*id)) == ends.end()) ends.push_back(*id);
    if (!ends.empty()) config["eos_token_id"] = ends.size() == 1 ? ends.front() : ends;
}

int64_t positive(const ArchitectureKeys& keys, const char* name, std::optional<int64_t> otherwise = {}) {
    const int64_t value = keys.integer(name, otherwise);
    if (value < 1 || value > INT32_MAX)
        fail(Exit::data, "{}: {} is {}, expected 1 to 2^31 - 1", keys.file().path(), keys.key(name), value);
    return value;
}

}  // namespace

std::optional<std::string> hugging_face_name(const std::string& gguf_name) {
    return translated_name(gguf_name, TensorNames::gguf);
}

Json gguf_config(const GgufReader& file) {
    const ArchitectureKeys keys(file);
    const TensorInfo* embedding = file.find("token_embd.weight");
    if (!embedding || embedding->shape.size() != 2)
        fail(Exit::data, "{}: no tensor 'token_embd.weight' of two dimensions", file.path());
    const int64_t hidden = positive(keys, "embedding_length"), heads = positive(keys, "attention.head_count");
    const int64_t head_dim = positive(keys, "attention.key_length", hidden / heads);
    const double theta = keys.number("rope.freq_base", 10000);
    refuse_other_settings(keys, head_dim);

    Json config = {{"model_type", keys.architecture()},
                   {"vocab_size", embedding->shape[0]},
                   {"hidden_size", hidden},
                   {"intermediate_size", positive(keys, "feed_forward_length")},
                   {"num_hidden_layers", positive(keys, "block_count")},
                   {"num_attention_heads", heads},
                   {"num_key_value_heads", positive(keys, "attention.head_count_kv", heads)},
                   {"head_dim", head_dim},
                   {"hidden_act", "silu"},
                   {"max_position_embeddings", positive(keys, "context_length")},
                   {"rms_norm_eps", keys.number("attention.layer_norm_rms_epsilon")},
                   {"rope_theta", theta},
                   {"tie_word_embeddings", file.find("output.weight") == nullptr}};
    if (Json scaling = rope_scaling(keys, head_dim, theta); !scaling.is_null())
        config["rope_scaling"] = std::move(scaling);
    if (keys.architecture() != "qwen2") config["attention_bias"] = file.find("blk.0.attn_q.bias") != nullptr;
    if (keys.architecture() == "llama") config["mlp_bias"] = file.find("blk.0.ffn_gate.bias") != nullptr;
    add_token_ids(file.metadata(), config);
    return config;
}

GgufWeights::GgufWeights(const std::string& path) : file_(path) {
    const ArchitectureKeys keys(file_);
    if (keys.architecture() == "llama") {
        q_heads_ = positive(keys, "attention.head_count");
        k_heads_ = positive(keys, "attention.head_count_kv", q_heads_);
    }
    for (const TensorInfo& info : file_.tensors()) {
        if (info.name == gguf_rope_tensor) continue;
        TensorInfo& renamed = tensors_.emplace_back(info);
        renamed.name = hugging_face_name(info.name).value_or(info.name);
        if (!index_.emplace(renamed.name, tensors_.size() - 1).second)
            fail(Exit::data, "{}: two tensors are '{}'", info.file, renamed.name);
        const int64_t heads = permuted_heads(renamed);
        if (heads && (renamed.shape.empty() || renamed.shape[0] % (2 * heads) != 0))
            fail(Exit::data, "{}: tensor '{}' is {}, which is not {} heads of an even size", info.file, info.name,
                 shape_text(info.shape), heads);
    }
}

const TensorInfo* GgufWeights::find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

int64_t GgufWeights::permuted_heads(const TensorInfo& info) const {
    const std::string_view stem = std::string_view(info.name).substr(0, info.name.rfind('.'));
    return stem.ends_with(q_suffix) ? q_heads_ : stem.ends_with(k_suffix) ? k_heads_ : 0;
}

void GgufWeights::read(const TensorInfo& info, const Tensor& into) const {
    file_.read(info, into);
    const int64_t heads = permuted_heads(info);
    if (heads == 0 || into.numel() == 0) return;
    const auto half = static_cast<size_t>(info.shape[0] / heads / 2);
    const size_t row = into.bytes() / static_cast<size_t>(info.shape[0]);
    std::vector<char> stored(2 * half * row);  // one head
    auto* head = static_cast<char*>(into.data);
    for (int64_t h = 0; h < heads; ++h, head += stored.size()) {
        std::memcpy(stored.data(), head, stored.size());
        for (size_t i = 0; i < half; ++i) {
            std::memcpy(head + i * row, stored.data() + 2 * i * row, row);
            std::memcpy(head + (half + i) * row, stored.data() + (2 * i + 1) * row, row);
        }
    }
}

}  // namespace colonnade
