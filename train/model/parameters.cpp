#include "train/model/parameters.h"

#include <algorithm>

#include "engine/device/philox.h"

namespace colonnade {

int64_t Parameter::size() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
}

void ParameterList::add(std::string name, std::vector<int64_t> shape) {
    const bool matrix = shape.size() == 2;
    all_.push_back({std::move(name), std::move(shape), size_, matrix});
    size_ += all_.back().size();
}

void ParameterList::align() {
    constexpr int64_t elements = 64;  // 256 bytes of fp32
    size_ = (size_ + elements - 1) / elements * elements;
}

ParameterList::ParameterList(const ModelConfig& c) {
    const int64_t h = c.hidden_size, f = c.intermediate_size, q = c.query_width(), kv = c.kv_width();
    if (c.score_head)
        add("score.weight", {1, h});
    else if (!c.tie_word_embeddings)
        add("lm_head.weight", {c.vocab_size, h});
    align();
    add("model.norm.weight", {h});
    for (int64_t l = c.num_hidden_layers - 1; l >= 0; --l) {
        const std::string layer = fmt::format("model.layers.{}.", l);
        // A group is contiguous: its members form one matrix (or bias) together.
        const auto group = [&](std::initializer_list<std::pair<const char*, int64_t>> members, int64_t in, bool bias) {
            align();
            for (const auto& [name, out] : members) add(layer + name + ".weight", {out, in});
            align();
            if (bias)
                for (const auto& [name, out] : members) add(layer + name + ".bias", {out});
        };
        group({{"mlp.down_proj", h}}, f, c.mlp_bias);
        group({{"mlp.gate_proj", f}, {"mlp.up_proj", f}}, h, c.mlp_bias);
        align();
        add(layer + "post_attention_layernorm.weight", {h});
        group({{"self_attn.o_proj", h}}, q, c.o_bias);
        if (c.qk_norm) {
            align();
            add(layer + "self_attn.q_norm.weight", {c.head_dim});
            align();
            add(layer + "self_attn.k_norm.weight", {c.head_dim});
        }
        group({{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}}, h, c.qkv_bias);
        align();
        add(layer + "input_layernorm.weight", {h});
    }
    align();
    add("model.embed_tokens.weight", {c.vocab_size, h});
    align();
}

const Parameter& ParameterList::find(const std::string& name) const {
    for (const Parameter& p : all_)
        if (p.name == name) return p;
    fail(Exit::internal, "no parameter '{}'", name);
}

int64_t ParameterList::count() const {
    int64_t n = 0;
    for (const Parameter& p : all_) n += p.size();
    return n;
}

ModelParameters view_parameters(const ModelConfig& c, const ParameterList& list, const Tensor& flat) {
    const auto slice = [&](const std::string& first, int64_t elements) {
        const int64_t begin = list.find(first).begin;
        return flat.slice(0, begin, begin + elements);
    };
    const auto matrix = [&](const std::string& first, int64_t rows, int64_t columns) {
        return slice(first, rows * columns).view({rows, columns});
    };
    const int64_t h = c.hidden_size, f = c.intermediate_size;
    ModelParameters m;
    m.embedding = matrix("model.embed_tokens.weight", c.vocab_size, h);
    if (c.score_head)
        m.head = matrix("score.weight", 1, h);
    else
        m.head = c.tie_word_embeddings ? m.embedding : matrix("lm_head.weight", c.vocab_size, h);
    m.final_norm = slice("model.norm.weight", h);
    for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
        const std::string layer = fmt::format("model.layers.{}.", l);
        BlockParameters b;
        b.input_norm = slice(layer + "input_layernorm.weight", h);
        b.qkv = matrix(layer + "self_attn.q_proj.weight", c.qkv_width(), h);
        if (c.qkv_bias) b.qkv_bias = slice(layer + "self_attn.q_proj.bias", c.qkv_width());
        if (c.qk_norm) {
            b.q_norm = slice(layer + "self_attn.q_norm.weight", c.head_dim);
            b.k_norm = slice(layer + "self_attn.k_norm.weight", c.head_dim);
        }
        b.o = matrix(layer + "self_attn.o_proj.weight", h, c.query_width());
        if (c.o_bias) b.o_bias = slice(layer + "self_attn.o_proj.bias", h);
        b.post_attention_norm = slice(layer + "post_attention_layernorm.weight", h);
        b.gate_up = matrix(layer + "mlp.gate_proj.weight", 2 * f, h);
        b.down = matrix(layer + "mlp.down_proj.weight", h, f);
        if (c.mlp_bias) {
            b.gate_up_bias = slice(layer + "mlp.gate_proj.bias", 2 * f);
            b.down_bias = slice(layer + "mlp.down_proj.bias", h);
        }
        m.blocks.push_back(b);
    }
    return m;
}

void initialize(const ModelConfig& config, const ParameterList& list, uint64_t seed, const Tensor& flat,
                int64_t distinct) {
    dispatch_float(flat.dtype, [&]<typename T>() {
        T* data = flat.as<T>();
        const int64_t size = flat.numel();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < size; ++i) data[i] = 0;
        for (size_t index = 0; index < list.all().size(); ++index) {
            const Parameter& p = list.all()[index];
            T* w = data + p.begin;
            const int64_t n = p.size();
            if (!p.decay) {
                const bool norm = p.name.ends_with("norm.weight");
                std::fill_n(w, n, norm ? T{1} : T{0});
                continue;
            }
            const Philox random{seed, index};
            const int64_t drawn = std::min(n, distinct);
#pragma omp parallel for schedule(static)
            for (int64_t i = 0; i < drawn; ++i)
                w[i] = static_cast<T>(config.initializer_range * random.normal(static_cast<uint64_t>(i)));
#pragma omp parallel for schedule(static)
            for (int64_t i = drawn; i < n; ++i) w[i] = w[i % drawn];
        }
    });
}

WeightFolder::WeightFolder(const ParameterList& list, const ModelConfig& config, const std::string& folder)
    : reader_(folder) {
    std::vector<std::string> problems;
    const auto begins_here = [&](const Parameter& p) { return p.name == "score.weight" && !reader_.find(p.name); };
    for (const Parameter& p : list.all()) {
        const TensorInfo* info = reader_.find(p.name);
        if (begins_here(p)) continue;
        if (!info)
            problems.push_back(fmt::format("'{}' {} is missing", p.name, shape_text(p.shape)));
        else if (info->shape != p.shape)
            problems.push_back(fmt::format("'{}' is {}, config.json makes it {}", p.name, shape_text(info->shape),
                                           shape_text(p.shape)));
    }
    for (const TensorInfo& info : reader_.tensors()) {
        const bool known =
            std::any_of(list.all().begin(), list.all().end(), [&](const Parameter& p) { return p.name == info.name; });
        const bool ignored = info.name.ends_with("rotary_emb.inv_freq") ||
                             ((config.tie_word_embeddings || config.score_head) && info.name == "lm_head.weight");
        if (!known && !ignored)
            problems.push_back(
                fmt::format("'{}' {} belongs to no part of the model", info.name, shape_text(info.shape)));
    }
    if (!problems.empty()) {
        constexpr size_t shown = 12;
        const size_t more = problems.size() > shown ? problems.size() - shown : 0;
        problems.resize(problems.size() - more);
        fail(Exit::data, "{}: the tensors do not fit config.json: {}{}", folder, fmt::join(problems, "; "),
             more ? fmt::format("; and {} more", more) : "");
    }
}

void load_weights(const ParameterList& list, const ModelConfig& config, const std::string& folder, const Tensor& flat) {
    const WeightFolder weights(list, config, folder);
    for (const Parameter& p : list.all())
        if (weights.has(p)) weights.read(p, flat.slice(0, p.begin, p.begin + p.size()));
}

std::vector<NamedTensor> named_tensors(const ParameterList& list, const Tensor& flat) {
    std::vector<NamedTensor> tensors;
    for (auto p = list.all().rbegin(); p != list.all().rend(); ++p)
        tensors.push_back({p->name, flat.slice(0, p->begin, p->begin + p->size()), p->shape});
    return tensors;
}

}  // namespace colonnade
