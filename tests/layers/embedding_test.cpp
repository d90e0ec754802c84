#include "layers/embedding.h"

#include "tests/support/device_case.h"

namespace colonnade {
namespace {

constexpr int64_t vocab = 7, hidden = 5;
const std::vector<int32_t> tokens{3, 0, 3, 6, 3, 1};

/// An index with its own memory, laid out for more tokens than it has.
struct HeldIndex {
    Arena arena{Device::cpu, 1 << 20};
    TokenIndex index;
    explicit HeldIndex(const std::vector<int32_t>& of, int64_t more = 0)
        : index(TokenIndex::lay_out(arena, "", std::ssize(of) + more)) {
        fill_token_index({}, index, of);
    }
};

/// d_W after embedding_backward onto `dweight`.
template <typename T>
std::vector<T> backward(std::vector<T> dweight, std::vector<T> dout, const std::vector<int32_t>& of, int64_t width) {
    embedding_backward({}, {.dweight = tensor_of(dweight, {std::ssize(dweight) / width, width}),
                            .dout = tensor_of(dout, {std::ssize(of), width}),
                            .index = HeldIndex(of).index});
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
    const HeldIndex held(tokens, 3);
    EXPECT_EQ(held.index.distinct, 4);
    const auto* begins = held.index.begins.as<int32_t>();
    EXPECT_EQ(std::vector<int32_t>(begins, begins + 10), (std::vector<int32_t>{0, 1, 2, 5, 6, 6, 6, 6, 6, 6}));
}

struct EmbeddingOnDevice : DeviceCase {
    /// An index for `room` positions; both sides allow for that many different tokens.
    struct IndexTwin {
        Twin order, begins, ids;
    };
    IndexTwin index_of(const std::vector<int32_t>& of, size_t room) {
        HostTokenIndex index = make_token_index(of);
        index.begins.resize(room + 1);  // unused entries
        index.order.resize(room, 1 << 30);
        index.ids.resize(room, 1 << 30);
        return {indices(index.order), indices(index.begins), indices(index.ids)};
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

        const int64_t room = count + 3;
        const Twin dout = values({room, width}, 2), dtable = sums({ids, width}, 3), again = sums({ids, width}, 3);
        const IndexTwin index = index_of(chosen, static_cast<size_t>(room));
        const auto backward = [&](const Context& ctx, auto of, const Twin& onto) {
            const TokenIndex on_device{
                .distinct = room, .order = of(index.order), .begins = of(index.begins), .ids = of(index.ids)};
            embedding_backward(ctx, {.dweight = of(onto), .dout = of(dout), .index = on_device});
        };
        run([&](const Context& ctx, auto of) { backward(ctx, of, dtable); });
        // A sequential sum of up to `count` terms of normal size.
        expect_close("dweight", dtable, {.relative = 2 * f32_rounding, .absolute = count * count * f32_rounding});
        backward(
            context(), [](const Twin& t) { return t.device; }, again);
        EXPECT_EQ(read(again.device), read(dtable.device)) << "the bits differ between runs";
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
