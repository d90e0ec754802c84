// The last block computes only the rows that the head reads. Their hidden states, and every gradient, are those of a
// pass that computes all rows, in which the head's gradient of the other rows is zero. In double, in memory full of NaN.

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/expect_error.h"
#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// What a pass is given beside the model and the batch.
struct Pass {
    std::vector<int32_t> rows;      ///< that the head reads
    std::vector<double> dhidden{};  ///< [rows, hidden], their gradient; empty: forward only
    bool by_rows = true;            ///< false: the pass computes all rows
    Recompute recompute = Recompute::none;
};

struct Found {
    std::vector<double> hidden, gradients;  ///< of the rows; of learner.parameters()
};

/// One pass over a batch, in memory of its own.
class RowsPass {
  public:
    RowsPass(const Learner& learner, const Batch& batch, const Pass& pass)
        : learner_(learner), pass_(pass), layout_(layout_of(batch)) {
        Arena plan(Device::cpu);
        lay_out(plan, batch);
        memory_.assign(plan.bytes() / sizeof(double), nan);
        Arena arena(Device::cpu, memory_.data(), plan.bytes());
        lay_out(arena, batch);
        batch_.fill({}, learner.config(), batch, 1);
        batch_.input.rows = view_of(pass_.rows);
        if (const auto& lora = learner.options().lora; lora && layout_.training)
            batch_.input.dropout = {.p = lora->dropout, .seed = 5, .stream = uint64_t{3} << 20};
    }

    Found run() {
        const Transformer& model = learner_.model();
        model.forward({}, batch_.input, acts_);
        Found found{.hidden = of_rows(numbers_of(acts_.hidden)), .gradients = first_gradients()};
        if (!layout_.training) return found;
        const std::vector<double> dhidden = pass_.by_rows ? pass_.dhidden : of_all(pass_.dhidden);
        std::copy(dhidden.begin(), dhidden.end(), acts_.dhidden.as<double>());
        const ParameterList& parameters = learner_.parameters();
        const auto& lora = learner_.options().lora;
        const Tensor flat = view_of(found.gradients);
        ModelParameters views;
        views.blocks.resize(static_cast<size_t>(learner_.config().num_hidden_layers));
        lora ? view_lora(learner_.config(), *lora, parameters, flat, views) : add_views(parameters, flat, views);
        model.backward({}, batch_.input, acts_,
                       {.views = views,
                        .matrices = lora ? Grad::accumulate : Grad::overwrite,
                        .lowest = lowest_layer(parameters)});
        return found;
    }

  private:
    ActivationLayout layout_of(const Batch& batch) const {
        ActivationLayout layout{.packs = batch.packs,
                                .length = batch.length,
                                .dtype = DType::f64,
                                .training = !pass_.dhidden.empty() || pass_.rows.empty(),
                                .recompute = pass_.recompute,
                                .lora = learner_.options().lora,
                                .quantised = learner_.options().base_code.has_value(),
                                .lowest = lowest_layer(learner_.parameters())};
        if (pass_.by_rows) layout.rows = std::ssize(pass_.rows);
        return layout;
    }
    void lay_out(Arena& arena, const Batch& batch) {
        batch_ = DeviceBatch::lay_out(arena, learner_.config(), BatchShape::of(batch), Answers::none);
        acts_ = Activations::lay_out(arena, learner_.config(), layout_);
    }
    /// Zero, but NaN for the matrices that backward overwrites.
    std::vector<double> first_gradients() const {
        std::vector<double> gradients(static_cast<size_t>(learner_.parameters().size()));
        for (const Parameter& p : learner_.parameters().all())
            if (p.in_block() && is_overwritten(p, learner_.config()))
                std::fill_n(gradients.begin() + p.begin, p.size(), nan);
        return gradients;
    }
    std::vector<double> of_rows(const std::vector<double>& hidden) const {
        if (pass_.by_rows) return hidden;
        std::vector<double> some;
        const int64_t width = learner_.config().hidden_size;
        for (const int32_t row : pass_.rows)
            some.insert(some.end(), hidden.begin() + row * width, hidden.begin() + (row + 1) * width);
        return some;
    }
    std::vector<double> of_all(const std::vector<double>& some) const {
        const auto width = static_cast<size_t>(learner_.config().hidden_size);
        std::vector<double> all(static_cast<size_t>(layout_.tokens()) * width);
        for (size_t i = 0; i < some.size(); ++i)
            all[static_cast<size_t>(pass_.rows[i / width]) * width + i % width] += some[i];
        return all;
    }

    const Learner& learner_;
    Pass pass_;
    ActivationLayout layout_;
    std::vector<double> memory_;
    DeviceBatch batch_;
    Activations acts_;
};

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    double largest = 0;
    for (const double x : expected) largest = std::max(largest, std::abs(x));
    EXPECT_GT(largest, 0);
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-12 * largest) << i;
}

struct Case {
    const char* name;
    Architecture architecture;
    bool biases = false;
    std::optional<LoraSettings> lora{};
    std::optional<WeightCode> code{};
};

struct HeadRows : testing::TestWithParam<Case> {
    static ModelConfig config() {
        ModelConfig config = tiny_config(GetParam().architecture, false);
        if (GetParam().biases) config.qkv_bias = config.o_bias = config.mlp_bias = true;
        return config;
    }
    static std::unique_ptr<Learner> learner() {
        const auto& [name, architecture, biases, lora, code] = GetParam();
        return lora ? lora_learner(config(), DType::f64, *lora, 2, 32, {}, code)
                    : tiny_learner(config(), DType::f64, 2, 32);
    }
    /// Two packs with a shared prompt and padding.
    static Batch batch() {
        const int64_t vocab = config().vocab_size;
        const Sample a = random_sample(1, 0, {9}, vocab), b = random_sample(2, 6, {4, 7}, vocab),
                     c = random_sample(3, 0, {19}, vocab);
        return make_batch({{&a, &b}, {&c}});
    }
    static std::vector<double> gradient_of(const std::vector<int32_t>& rows) {
        const Philox random{8, 0};
        std::vector<double> values(rows.size() * static_cast<size_t>(config().hidden_size));
        for (size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
        return values;
    }
};

TEST_P(HeadRows, EqualAPassThatComputesAllRows) {
    const auto learner = this->learner();
    const Batch batch = this->batch();
    std::vector<int32_t> thrice;  // more rows than tokens
    for (int32_t row = 0; row < static_cast<int32_t>(batch.tokens_total()); ++row) thrice.insert(thrice.end(), 3, row);
    for (const std::vector<int32_t>& rows :
         {batch.rows, std::vector<int32_t>{14}, std::vector<int32_t>{0, 5, 5, 14, 20, 30}, thrice}) {
        const Found expected =
            RowsPass(*learner, batch, {.rows = rows, .dhidden = gradient_of(rows), .by_rows = false}).run();
        for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
            SCOPED_TRACE(fmt::format("{} rows, recompute {}", rows.size(), static_cast<int>(recompute)));
            const Found found =
                RowsPass(*learner, batch, {.rows = rows, .dhidden = gradient_of(rows), .recompute = recompute}).run();
            expect_near(found.hidden, expected.hidden);
            expect_near(found.gradients, expected.gradients);
        }
        expect_near(RowsPass(*learner, batch, {.rows = rows}).run().hidden,
                    RowsPass(*learner, batch, {.rows = rows, .by_rows = false}).run().hidden);
    }
}

TEST_P(HeadRows, NoRowsHaveNoGradient) {
    const auto learner = this->learner();
    const Found found = RowsPass(*learner, batch(), {.rows = {}}).run();
    EXPECT_TRUE(found.hidden.empty());
    EXPECT_EQ(found.gradients, std::vector<double>(found.gradients.size()));
}

LoraSettings dropping_lora() {
    LoraSettings lora = lora_of();
    lora.dropout = 0.3;
    return lora;
}

INSTANTIATE_TEST_SUITE_P(Families, HeadRows,
                         testing::Values(Case{"llama", Architecture::llama},
                                         Case{"llama_biased", Architecture::llama, true},
                                         Case{"mistral", Architecture::mistral}, Case{"qwen2", Architecture::qwen2},
                                         Case{"qwen3", Architecture::qwen3},
                                         Case{"llama_lora", Architecture::llama, false, lora_of()},
                                         Case{"qwen3_lora_o", Architecture::qwen3, false, lora_of({"o_proj"})},
                                         Case{"qwen2_lora_dropout", Architecture::qwen2, false, dropping_lora()},
                                         Case{"llama_nf4", Architecture::llama, false, lora_of(), WeightCode::nf4}),
                         [](const auto& test) { return test.param.name; });

/// The rows take no memory beside that of all tokens, and few rows take less.
TEST(HeadRowsMemory, IsThatOfTheRows) {
    const ModelConfig config = tiny_config(Architecture::qwen3);
    for (const bool training : {false, true})
        for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::block}) {
            const auto bytes = [&](std::optional<int64_t> rows) {
                Arena plan(Device::cpu);
                Activations::lay_out(plan, config,
                                     {.packs = 2,
                                      .length = 512,
                                      .dtype = DType::f64,
                                      .rows = rows,
                                      .training = training,
                                      .recompute = recompute});
                return plan.bytes();
            };
            EXPECT_EQ(bytes(1024), bytes({}));
            // At least hidden, and the residual stream before it.
            EXPECT_LE(bytes(24) + 2 * 1000 * 12 * sizeof(double), bytes({}));
            if (training && recompute == Recompute::none) {  // and what SwiGLU reads and writes
                EXPECT_LE(bytes(24) + 1000 * (2 * 12 + 3 * 20) * sizeof(double), bytes({}));
            }
        }
}

TEST(HeadRowsErrors, NameWhatWasFoundAndExpected) {
    const auto learner = tiny_learner(tiny_config(Architecture::llama), DType::f64, 1, 16);
    const Sample sample = random_sample(1, 0, {9}, learner->config().vocab_size);
    const Batch batch = make_batch({{&sample}});
    expect_error(Exit::internal, "rows[1] is 9, outside [0, 9)", [&] {
        RowsPass(*learner, batch, {.rows = {4, 9}, .dhidden = std::vector<double>(24)}).run();
    });
}

}  // namespace
}  // namespace colonnade
