#include "train/model/lora.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "engine/device/gemm.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// A linear layer of a block: its name in PEFT's list of targets, and where it lies in the model.
struct Module {
    std::string name, path;
    Product product;
    int64_t begin, out, in;  ///< its columns of the product's output, and their input
};

/// Product by product in the order of backward; in a product by column.
std::array<Module, 7> modules_of(const ModelConfig& c) {
    const int64_t h = c.hidden_size, f = c.intermediate_size, q = c.query_width(), kv = c.kv_width();
    return {{{"down_proj", "mlp.down_proj", Product::down, 0, h, f},
             {"gate_proj", "mlp.gate_proj", Product::gate_up, 0, f, h},
             {"up_proj", "mlp.up_proj", Product::gate_up, f, f, h},
             {"o_proj", "self_attn.o_proj", Product::o, 0, h, q},
             {"q_proj", "self_attn.q_proj", Product::qkv, 0, q, h},
             {"k_proj", "self_attn.k_proj", Product::qkv, q, kv, h},
             {"v_proj", "self_attn.v_proj", Product::qkv, q + kv, kv, h}}};
}

/// The adapted modules of a product.
std::vector<Module> adapted(const ModelConfig& config, const LoraSettings& settings, Product product) {
    std::vector<Module> modules;
    for (const Module& m : modules_of(config))
        if (m.product == product && settings.targets.contains(m.name)) modules.push_back(m);
    return modules;
}

std::string name_of_a(int64_t layer, const Module& m) {
    return fmt::format("model.layers.{}.{}.lora_A.weight", layer, m.path);
}
std::string name_of_b(int64_t layer, const Module& m) {
    return fmt::format("model.layers.{}.{}.lora_B.weight", layer, m.path);
}

bool is_a(const Parameter& p) {
    return p.name.ends_with(".lora_A.weight");
}

Tensor matrix(const Tensor& flat, const Parameter& p) {
    return flat.slice(0, p.begin, p.begin + p.size()).view({p.shape[0], p.shape[1]});
}

}  // namespace

double LoraSettings::scale() const {
    const auto r = static_cast<double>(rank);
    return alpha / (rslora ? std::sqrt(r) : r);
}

int64_t LoraSettings::width(Product product) const {
    return rank * std::ssize(adapted(ModelConfig(), *this, product));
}

const std::vector<std::string>& lora_modules() {
    static const std::vector<std::string> names = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                   "gate_proj", "up_proj", "down_proj"};
    return names;
}

ParameterList lora_parameters(const ModelConfig& config, const LoraSettings& settings) {
    ParameterList list;
    if (settings.head) {
        require(config.score_head || !config.tie_word_embeddings, "the model has no head of its own to train");
        const ParameterList model(config);
        list.add(model.all().front().name, model.all().front().shape);  // what backward finishes first
        list.align();
    }
    for (int64_t layer = config.num_hidden_layers - 1; layer >= 0; --layer)
        for (const Product product : {Product::down, Product::gate_up, Product::o, Product::qkv}) {
            const std::vector<Module> modules = adapted(config, settings, product);
            for (const Module& m : modules) list.add(name_of_a(layer, m), {settings.rank, m.in});
            list.align();
            for (const Module& m : modules) {
                list.add(name_of_b(layer, m), {m.out, settings.rank});
                list.align();
            }
        }
    return list;
}

void view_lora(const ModelConfig& config, const LoraSettings& settings, const ParameterList& list, const Tensor& flat,
               ModelParameters& model) {
    model.blocks.resize(static_cast<size_t>(config.num_hidden_layers));
    if (settings.head) model.head = matrix(flat, list.all().front());
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
        for (size_t p = 0; p < products; ++p) {
            const std::vector<Module> modules = adapted(config, settings, static_cast<Product>(p));
            if (modules.empty()) continue;
            LowRank& pairs = model.blocks[static_cast<size_t>(layer)].adapters[p];
            const int64_t begin = list.find(name_of_a(layer, modules.front())).begin;
            const int64_t rows = settings.rank * std::ssize(modules), in = modules.front().in;
            pairs.a = flat.slice(0, begin, begin + rows * in).view({rows, in});
            pairs.scale = settings.scale();
            for (const Module& m : modules)
                pairs.slices.push_back({m.begin, matrix(flat, list.find(name_of_b(layer, m)))});
        }
}

bool is_low_rank(const Parameter& p) {
    return p.name.find(".lora_") != std::string::npos;
}

void initialize_lora(const ParameterList& list, uint64_t seed, const Tensor& flat) {
    constexpr uint64_t streams = uint64_t{1} << 62;  // apart from those of the model's own weights
    dispatch_float(flat.dtype, [&]<typename T>() {
        T* const data = flat.as<T>();
        std::fill_n(data, flat.numel(), T{0});
        for (size_t index = 0; index < list.all().size(); ++index) {
            const Parameter& p = list.all()[index];
            if (!is_a(p)) continue;
            const Philox random{seed, streams | index};
            const double bound = 1 / std::sqrt(static_cast<double>(p.shape[1]));
#pragma omp parallel for schedule(static)
            for (int64_t i = 0; i < p.size(); ++i)
                data[p.begin + i] = static_cast<T>(bound * (2 * random.uniform(static_cast<uint64_t>(i)) - 1));
        }
    });
}

void merge_lora(const LoraSettings& settings, const ParameterList& list, const Tensor& flat, const ParameterList& model,
                const Tensor& weights) {
    require(flat.dtype == weights.dtype, "merge_lora: adapters are {}, weights {}", name_of(flat.dtype),
            name_of(weights.dtype));
    for (const Parameter& p : list.all()) {
        if (!is_low_rank(p))
            std::memcpy(matrix(weights, model.find(p.name)).data, matrix(flat, p).data, matrix(flat, p).bytes());
        if (!is_a(p)) continue;
        const std::string layer = p.name.substr(0, p.name.size() - std::string_view("lora_A.weight").size());
        const Tensor a = matrix(flat, p), b = matrix(flat, list.find(layer + "lora_B.weight"));
        const Tensor w = matrix(weights, model.find(layer + "weight"));
        gemm({}, {.c = w, .a = b, .b = a, .alpha = settings.scale(), .beta = 1});
    }
}

}  // namespace colonnade
