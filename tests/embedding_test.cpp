// links: layers
#include "layers/embedding.h"

#include "device_case.h"

namespace colonnade {
namespace {

constexpr int64_t vocab = 7, hidden = 5;
const std::vector<int32_t> tokens{3, 0, 3, 6, 3, 1};

/// d_W after embedding_backward onto `dweight`.
template <typename T>
std::vector<T> backward(std::vector<T> dweight, std::vector<T> dout, const std::vector<int32_t>& of, int64_t width) {
    embedding_backward({}, {.dweight = tensor_of(dweight, {std::ssize(dweight) / width, width}),
                            .dout = tensor_of(dout, {std::ssize(of), width}),
                            .tokens = view_of(of)});
    return dweight;
}

TEST(Embedding, LooksRowsUp) {
    auto weight = random_values<float>(vocab * hidden, 1);
    std::vector<float> out(tokens.size() * hidden);
    embedding_forward(
        {},
        {.out = tensor_of(out, {6, hidden}), .tokens = view_of(tokens), .weight = tensor_of(weight, {vocab, hidden})});
    for (size_t t = 0; t < tokens.size(); ++t)
        for (size_t j = 0; j < hidden; ++j)
            EXPECT_EQ(out[t * hidden + j], weight[static_cast<size_t>(tokens[t]) * hidden + j]);
}

TEST(Embedding, GradientMatchesDifferences) {
    auto weight = random_values<double>(vocab * hidden, 1);
    const auto dout = random_values<double>(std::ssize(tokens) * hidden, 2);
    std::vector<double> out(dout.size());
    const auto loss = [&] {
        embedding_forward({}, {.out = tensor_of(out, {6, hidden}),
                               .tokens = view_of(tokens),
                               .weight = tensor_of(weight, {vocab, hidden})});
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
                               .tokens = view_of(of),
                               .weight = tensor_of(weight, {vocab, hidden})});
    };
    expect_error(Exit::data, "position 1: token 7 is outside the vocabulary [0, 7)", [&] { run({0, 7}, hidden); });
    expect_error(Exit::data, "position 0: token -1 is outside the vocabulary [0, 7)", [&] { run({-1, 6}, hidden); });
    expect_error(Exit::data, "position 1: token 9", [&] { backward(weight, out, std::vector<int32_t>{2, 9}, hidden); });
    expect_error(Exit::internal, "out is [5, 2] f32 on cpu, expected [2, 5] f32", [&] { run({0, 1}, 2); });
    expect_error(Exit::internal, "out is [2, 5] f32 on cpu, expected [3, 5] f32", [&] { run({0, 1, 2}, hidden); });
    expect_error(Exit::internal, "embedding_forward has no kernel for f32 on device cuda", [&] {
        embedding_forward(
            {.device = Device::cuda},
            {.out = tensor_of(out, {2, hidden}), .tokens = {}, .weight = tensor_of(weight, {vocab, hidden})});
    });
}

TEST(TokenIndex, SortsPositionsByTokenThenPosition) {
    const HostTokenIndex index = make_token_index(tokens);
    EXPECT_EQ(index.ids, (std::vector<int32_t>{0, 1, 3, 6}));
    EXPECT_EQ(index.begins, (std::vector<int32_t>{0, 1, 2, 5, 6}));
    EXPECT_EQ(index.order, (std::vector<int32_t>{1, 5, 0, 2, 4, 3}));
    EXPECT_EQ(make_token_index(std::vector<int32_t>{}).ids, std::vector<int32_t>{});
    EXPECT_EQ(make_token_index(std::vector<int32_t>{2}).begins, (std::vector<int32_t>{0, 1}));
}

struct EmbeddingOnDevice : DeviceCase {
    TokenIndex index_of(const std::vector<int32_t>& ids) {
        TokenIndex index;
        if (!on_gpu()) return index;
        const std::vector<int32_t> room(ids.size() + 1);
        index.order = indices(room).device.slice(0, 0, std::ssize(ids));
        index.begins = indices(room).device;
        index.ids = indices(room).device.slice(0, 0, std::ssize(ids));
        upload_token_index(context(), index, ids);
        return index;
    }
};

TEST_P(EmbeddingOnDevice, LooksUpAndAddsRows) {
    for (const auto& [count, ids, width] : {std::tuple<int, int, int64_t>{6, 7, 5},
                                            {9, 50, 64},
                                            {700, 11, 264},
                                            {257, 1000, 896},
                                            {1500, 1, 40},
                                            {30, 7, 301}}) {
        release();
        std::vector<int32_t> chosen;
        for (int t = 0; t < count; ++t) chosen.push_back(t * t % ids);
        const Twin indexes = indices(chosen);
        const Twin table = values({ids, width}, 1), out = output({count, width + 8});
        run([&](const Context& ctx, auto of) {
            embedding_forward(ctx, {.out = of(out.slice(1, 8, width + 8)), .tokens = of(indexes), .weight = of(table)});
        });
        expect_close("out", out, {});

        const Twin dout = values({count, width}, 2), dtable = sums({ids, width}, 3), again = sums({ids, width}, 3);
        const TokenIndex index = index_of(chosen);
        run([&](const Context& ctx, auto of) {
            embedding_backward(ctx, {.dweight = of(dtable), .dout = of(dout), .tokens = of(indexes), .index = index});
        });
        // A sum of up to `count` terms of normal size, added one after the other.
        expect_close("dweight", dtable, {.relative = 2 * f32_rounding, .absolute = count * count * f32_rounding});
        embedding_backward(context(),
                           {.dweight = again.device, .dout = dout.device, .tokens = indexes.device, .index = index});
        EXPECT_EQ(read(again.device), read(dtable.device)) << "another run, other bits";
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
