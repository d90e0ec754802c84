// links: layers
#include "layers/embedding.h"

#include "gradient_check.h"

namespace colonnade {
namespace {

constexpr int64_t vocab = 7, hidden = 5;
const std::vector<int32_t> tokens{3, 0, 3, 6, 3, 1};

/// d_W after embedding_backward onto `dweight`.
template <typename T>
std::vector<T> backward(std::vector<T> dweight, std::vector<T> dout, std::span<const int32_t> of, int64_t width) {
    embedding_backward({}, {.dweight = tensor_of(dweight, {std::ssize(dweight) / width, width}),
                            .dout = tensor_of(dout, {std::ssize(of), width}),
                            .tokens = of});
    return dweight;
}

TEST(Embedding, LooksRowsUp) {
    auto weight = random_values<float>(vocab * hidden, 1);
    std::vector<float> out(tokens.size() * hidden);
    embedding_forward(
        {}, {.out = tensor_of(out, {6, hidden}), .tokens = tokens, .weight = tensor_of(weight, {vocab, hidden})});
    for (size_t t = 0; t < tokens.size(); ++t)
        for (size_t j = 0; j < hidden; ++j)
            EXPECT_EQ(out[t * hidden + j], weight[static_cast<size_t>(tokens[t]) * hidden + j]);
}

TEST(Embedding, GradientMatchesDifferences) {
    auto weight = random_values<double>(vocab * hidden, 1);
    const auto dout = random_values<double>(std::ssize(tokens) * hidden, 2);
    std::vector<double> out(dout.size());
    const auto loss = [&] {
        embedding_forward(
            {}, {.out = tensor_of(out, {6, hidden}), .tokens = tokens, .weight = tensor_of(weight, {vocab, hidden})});
        return inner_product(out, dout);
    };
    expect_gradient("weight", weight, backward(std::vector<double>(weight.size()), dout, tokens, hidden), loss);
}

TEST(Embedding, GradientAddsInTokenOrder) {
    const auto dout = random_values<float>(std::ssize(tokens) * hidden, 2);
    const auto before = random_values<float>(vocab * hidden, 3);
    auto expected = before;
    for (size_t t = 0; t < tokens.size(); ++t)
        for (size_t j = 0; j < hidden; ++j)
            expected[static_cast<size_t>(tokens[t]) * hidden + j] += dout[t * hidden + j];
    EXPECT_EQ(backward(before, dout, tokens, hidden), expected);
}

TEST(Embedding, SameBitsWithAnyThreads) {
    std::vector<int32_t> many;
    for (int32_t t = 0; t < 500; ++t) many.push_back(t * t % 11);
    const auto dout = random_values<float>(500 * 37, 4);
    expect_same_with_any_threads([&] { return backward(std::vector<float>(11 * 37), dout, many, 37); });
}

TEST(Embedding, RefusesBadInput) {
    std::vector<float> weight(vocab * hidden), out(2 * hidden);
    const auto run = [&](std::vector<int32_t> of, int64_t width) {
        embedding_forward({}, {.out = tensor_of(out, {2 * hidden / width, width}),
                               .tokens = of,
                               .weight = tensor_of(weight, {vocab, hidden})});
    };
    expect_error(Exit::data, "position 1: token 7 is outside the vocabulary [0, 7)", [&] { run({0, 7}, hidden); });
    expect_error(Exit::data, "position 0: token -1 is outside the vocabulary [0, 7)", [&] { run({-1, 6}, hidden); });
    expect_error(Exit::data, "position 1: token 9", [&] { backward(weight, out, std::vector<int32_t>{2, 9}, hidden); });
    expect_error(Exit::internal, "out is [5, 2] f32 on cpu, expected [2, 5] f32", [&] { run({0, 1}, 2); });
    expect_error(Exit::internal, "out is [2, 5] f32 on cpu, expected [3, 5] f32", [&] { run({0, 1, 2}, hidden); });
    expect_error(Exit::config, "embedding_forward has no kernel for device cuda", [&] {
        embedding_forward(
            {.device = Device::cuda},
            {.out = tensor_of(out, {2, hidden}), .tokens = {}, .weight = tensor_of(weight, {vocab, hidden})});
    });
}

}  // namespace
}  // namespace colonnade
