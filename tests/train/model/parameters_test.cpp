// The list of parameters and its layout, initial numbers, and reading weights from a folder.

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <set>

#include "tests/support/file_test.h"
#include "tests/support/tiny_model.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

constexpr Architecture architectures[] = {Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                          Architecture::qwen3};

ModelConfig with_biases() {
    ModelConfig c = tiny_config(Architecture::llama, false);
    c.qkv_bias = c.o_bias = c.mlp_bias = true;
    return c;
}

TEST(ParameterList, IsInBackwardOrderWithoutOverlap) {
    for (const Architecture architecture : architectures)
        for (const bool tied : {true, false}) {
            const ParameterList list(tiny_config(architecture, tied));
            int64_t end = 0, count = 0;
            std::set<std::string> names;
            for (const Parameter& p : list.all()) {
                EXPECT_GE(p.begin, end) << p.name;
                EXPECT_LT(p.begin - end, 64) << p.name << ": a gap beyond alignment";
                end = p.begin + p.size();
                count += p.size();
                names.insert(p.name);
            }
            EXPECT_EQ(names.size(), list.all().size());
            EXPECT_GE(list.size(), end);
            EXPECT_EQ(list.size() % 64, 0);
            EXPECT_EQ(list.count(), count);
            // The gradient of the head is final first, then the layers from last to first, then the embedding.
            EXPECT_EQ(list.all().front().name, tied ? "model.norm.weight" : "lm_head.weight");
            EXPECT_EQ(list.all().back().name, "model.embed_tokens.weight");
            EXPECT_LT(list.named("model.layers.1.self_attn.q_proj.weight")->begin,
                      list.named("model.layers.0.mlp.down_proj.weight")->begin);
            EXPECT_EQ(names.contains("lm_head.weight"), !tied);
        }
}

TEST(ParameterList, FindsParametersByRoleAndLayer) {
    ModelConfig config = with_biases();
    config.qk_norm = true;
    const ParameterList list(config);
    for (const Parameter& p : list.all()) {
        EXPECT_EQ(list.find(p.role, p.layer), &p) << p.name;
        EXPECT_EQ(list.named(p.name), &p);
        EXPECT_EQ(p.in_block(), p.name.starts_with("model.layers.")) << p.name;
        EXPECT_EQ(p.decay, p.shape.size() == 2) << p.name;
        EXPECT_EQ(p.init == Init::ones, p.name.ends_with("norm.weight")) << p.name;
        if (p.in_block()) {
            EXPECT_TRUE(p.name.starts_with(fmt::format("model.layers.{}.", p.layer))) << p.name;
        }
    }
    EXPECT_EQ(list.find(Role::embedding)->layer, embedding_layer);
    EXPECT_EQ(list.find(Role::final_norm)->layer, config.num_hidden_layers);
    EXPECT_EQ(list.head(), list.find(Role::lm_head));
    EXPECT_EQ(list.find(Role::score_head), nullptr);
    EXPECT_EQ(ParameterList(tiny_config(Architecture::llama, true)).head(), nullptr);
    config.score_head = true;
    EXPECT_EQ(ParameterList(config).head()->name, "score.weight");
}

TEST(ParameterList, GroupsAreOneMatrixAndStartAligned) {
    for (const ModelConfig& config :
         {with_biases(), tiny_config(Architecture::qwen2), tiny_config(Architecture::qwen3)}) {
        const ParameterList list(config);
        const auto expect_group = [&](const std::vector<std::string>& members, const std::string& kind) {
            for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
                const auto find = [&](const std::string& member) -> const Parameter& {
                    return *list.named(fmt::format("model.layers.{}.{}.{}", layer, member, kind));
                };
                EXPECT_EQ(find(members[0]).begin % 64, 0) << members[0];
                for (size_t i = 1; i < members.size(); ++i)
                    EXPECT_EQ(find(members[i]).begin, find(members[i - 1]).begin + find(members[i - 1]).size());
            }
        };
        expect_group({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, "weight");
        expect_group({"mlp.gate_proj", "mlp.up_proj"}, "weight");
        if (config.qkv_bias) expect_group({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, "bias");
        if (config.mlp_bias) expect_group({"mlp.gate_proj", "mlp.up_proj"}, "bias");
        for (const Parameter& p : list.all())
            if (p.shape.size() == 1 && !p.name.ends_with(".bias")) {
                EXPECT_EQ(p.begin % 64, 0) << p.name;
            }
    }
}

TEST(ParameterList, ViewsCoverEveryParameterOnce) {
    for (const ModelConfig& c :
         {with_biases(), tiny_config(Architecture::qwen3), tiny_config(Architecture::qwen2, false)}) {
        const ParameterList list(c);
        std::vector<float> flat(static_cast<size_t>(list.size()));
        const Tensor whole(flat.data(), DType::f32, {list.size()});
        const ModelParameters m = view_parameters(list, whole);
        std::vector<Tensor> views = {m.embedding, m.final_norm};
        if (!c.tie_word_embeddings) views.push_back(m.head);
        for (const BlockParameters& b : m.blocks) {
            views.insert(views.end(), {b.input_norm, b.q_norm, b.k_norm, b.post_attention_norm});
            for (const Projection p : all_projections)
                views.insert(views.end(), {b.linear[p].weight, b.linear[p].bias});
        }
        for (const Tensor& view : views)
            for (int64_t i = 0; !view.empty() && i < view.numel(); ++i) view.as<float>()[i] += 1;
        std::vector<float> expected(flat.size());
        for (const Parameter& p : list.all()) std::fill_n(expected.begin() + p.begin, p.size(), 1.0f);
        EXPECT_EQ(flat, expected);
        if (c.tie_word_embeddings) {
            EXPECT_EQ(m.head.data, m.embedding.data);
        }
    }
}

// --- Initialisation -----------------------------------------------------------------------------------------------

std::vector<float> initialized(const ModelConfig& config, uint64_t seed) {
    const ParameterList list(config);
    std::vector<float> flat(static_cast<size_t>(list.size()), NAN);
    initialize(list, {.seed = seed, .range = config.initializer_range}, Tensor(flat.data(), DType::f32, {list.size()}));
    return flat;
}

TEST(Initialize, IsNormalForMatricesOneForNormsZeroForBiases) {
    ModelConfig config = with_biases();
    config.hidden_size = 64;
    config.intermediate_size = 96;
    config.vocab_size = 211;
    config.initializer_range = 0.05;
    const std::vector<float> flat = initialized(config, 42);
    std::vector<bool> covered(flat.size());
    const ParameterList list(config);
    for (const Parameter& p : list.all()) {
        double sum = 0, squares = 0, fourth = 0;
        for (int64_t i = 0; i < p.size(); ++i) {
            const double x = flat[static_cast<size_t>(p.begin + i)] / config.initializer_range;
            covered[static_cast<size_t>(p.begin + i)] = true;
            sum += x;
            squares += x * x;
            fourth += x * x * x * x;
            if (p.name.ends_with("norm.weight")) {
                EXPECT_EQ(flat[static_cast<size_t>(p.begin + i)], 1) << p.name;
            }
            if (p.name.ends_with(".bias")) {
                EXPECT_EQ(flat[static_cast<size_t>(p.begin + i)], 0) << p.name;
            }
        }
        if (p.shape.size() != 2) continue;
        // Five standard errors of mean, variance and fourth moment of a normal distribution.
        const double n = static_cast<double>(p.size()), error = 5 / std::sqrt(n);
        EXPECT_NEAR(sum / n, 0, error) << p.name;
        EXPECT_NEAR(squares / n, 1, error * std::sqrt(2.0)) << p.name;
        EXPECT_NEAR(fourth / n, 3, error * std::sqrt(96.0)) << p.name;
    }
    for (size_t i = 0; i < flat.size(); ++i) EXPECT_TRUE(covered[i] || flat[i] == 0) << "a gap at " << i;
}

TEST(Initialize, IsAFunctionOfTheSeedAlone) {
    ModelConfig config = tiny_config(Architecture::llama, false);
    config.vocab_size = 3001;
    omp_set_num_threads(1);
    const std::vector<float> once = initialized(config, 1);
    for (const int threads : {2, 5}) {
        omp_set_num_threads(threads);
        EXPECT_TRUE(initialized(config, 1) == once) << threads << " threads";
    }
    EXPECT_FALSE(initialized(config, 2) == once);
    // Two parameters of the same shape differ.
    const ParameterList list(config);
    const auto first = [&](const char* name) { return once[static_cast<size_t>(list.named(name)->begin)]; };
    EXPECT_NE(first("model.layers.0.mlp.gate_proj.weight"), first("model.layers.1.mlp.gate_proj.weight"));
    EXPECT_NE(first("lm_head.weight"), first("model.embed_tokens.weight"));
}

TEST(Initialize, RepeatsItsFirstNumbers) {
    const Parameter p{.name = "w", .shape = {7, 100}, .init = Init::normal};
    std::vector<float> all(700), repeated(700);
    initialize(p, {.seed = 1}, view_of(all));
    initialize(p, {.seed = 1, .distinct = 97}, view_of(repeated));
    for (size_t i = 0; i < repeated.size(); ++i) EXPECT_EQ(repeated[i], all[i % 97]) << i;
}

// --- Reading weights ----------------------------------------------------------------------------------------------

class LoadWeights : public FileTest {
  protected:
    void write(const std::vector<NamedTensor>& tensors, DType stored = DType::f32) const {
        std::filesystem::remove_all(path("model"));
        std::filesystem::create_directories(path("model"));
        write_safetensors(path("model"), tensors, stored);
    }
    std::vector<float> load(const ModelConfig& config) const {
        const ParameterList list(config);
        std::vector<float> flat(static_cast<size_t>(list.size()));
        load_weights(list, config, path("model"), Tensor(flat.data(), DType::f32, {list.size()}));
        return flat;
    }
    std::vector<NamedTensor> tensors_of(const ModelConfig& config) {
        flat_ = initialized(config, 3);
        return named_tensors(ParameterList(config), Tensor(flat_.data(), DType::f32, {std::ssize(flat_)}));
    }
    std::vector<float> flat_;
};

TEST_F(LoadWeights, RoundTrip) {
    for (const Architecture architecture : architectures) {
        const ModelConfig config = tiny_config(architecture, false);
        write(tensors_of(config));
        EXPECT_TRUE(load(config) == flat_) << name_of(architecture);
    }
}

TEST_F(LoadWeights, SkipsATiedHeadAndOldRotaryBuffers) {
    const ModelConfig tied = tiny_config(Architecture::llama, true);
    std::vector<NamedTensor> tensors = tensors_of(tied);
    NamedTensor head = *std::ranges::find(tensors, "model.embed_tokens.weight", &NamedTensor::name);
    head.name = "lm_head.weight";
    tensors.push_back(head);
    std::vector<float> extra(2, 7.0f);
    tensors.push_back({"model.layers.1.self_attn.rotary_emb.inv_freq", Tensor(extra.data(), DType::f32, {2}), {2}});
    write(tensors);
    EXPECT_TRUE(load(tied) == flat_);
}

TEST_F(LoadWeights, ReportsEveryMismatchAtOnce) {
    ModelConfig config = tiny_config(Architecture::qwen2, false);
    std::vector<NamedTensor> tensors = tensors_of(config);
    for (NamedTensor& t : tensors) {
        if (t.name == "model.norm.weight") t.name = "model.norm.scale";
        if (t.name == "model.layers.0.mlp.up_proj.weight") std::swap(t.shape[0], t.shape[1]);
    }
    std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "model.layers.1.self_attn.k_proj.bias"; });
    write(tensors);
    const std::string message = expect_error(Exit::data, path("model"), [&] { load(config); });
    for (const char* part : {"'model.norm.weight' [12] is missing", "'model.norm.scale' [12] belongs to no part",
                             "'model.layers.0.mlp.up_proj.weight' is [12, 20], config.json makes it [20, 12]",
                             "'model.layers.1.self_attn.k_proj.bias' [8] is missing"})
        EXPECT_NE(message.find(part), std::string::npos) << message << "\n  lacks: " << part;
}

TEST_F(LoadWeights, CountsProblemsThatItDoesNotList) {
    write(tensors_of(tiny_config(Architecture::llama, false)));
    ModelConfig deeper = tiny_config(Architecture::llama, false);
    deeper.num_hidden_layers = 4;
    deeper.windows.resize(4);
    // 9 parameters a layer, 2 layers too many; the message lists 12.
    expect_error(Exit::data, "; and 6 more", [&] { load(deeper); });
    expect_error(Exit::data, "nowhere", [&] {
        const ParameterList list(deeper);
        std::vector<float> flat(static_cast<size_t>(list.size()));
        load_weights(list, deeper, path("nowhere"), Tensor(flat.data(), DType::f32, {list.size()}));
    });
}

}  // namespace
}  // namespace colonnade
