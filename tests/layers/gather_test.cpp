#include "layers/gather.h"

#include "tests/support/device_case.h"

namespace colonnade {
namespace {

constexpr int64_t tokens = 6, hidden = 5;
const std::vector<int32_t> rows{4, 1, 4, 5};  // unordered, one twice, some never

template <typename T>
std::vector<T> scatter(std::vector<T> din, std::vector<T> dout, const std::vector<int32_t>& to, int64_t width) {
    scatter_rows({}, {.din = tensor_of(din, {std::ssize(din) / width, width}),
                      .dout = tensor_of(dout, {std::ssize(to), width}),
                      .rows = view_of(to)});
    return din;
}

TEST(Gather, PicksRowsOfAStridedInput) {
    auto wide = random_values<float>(tokens * 8, 1);
    std::vector<float> out(rows.size() * hidden);
    gather_rows(
        {},
        {.out = tensor_of(out, {4, hidden}), .in = tensor_of(wide, {tokens, 8}).slice(1, 2, 7), .rows = view_of(rows)});
    for (size_t i = 0; i < rows.size(); ++i)
        for (size_t j = 0; j < hidden; ++j)
            EXPECT_EQ(out[i * hidden + j], wide[static_cast<size_t>(rows[i]) * 8 + 2 + j]);
}

TEST(Gather, GradientMatchesDifferences) {
    auto in = random_values<double>(tokens * hidden, 1);
    const auto dout = random_values<double>(std::ssize(rows) * hidden, 2);
    std::vector<double> out(dout.size());
    const auto loss = [&] {
        gather_rows({},
                    {.out = tensor_of(out, {4, hidden}), .in = tensor_of(in, {tokens, hidden}), .rows = view_of(rows)});
        return inner_product(out, dout);
    };
    // The previous content of din does not matter.
    expect_gradient("in", in, scatter(random_values<double>(tokens * hidden, 3), dout, rows, hidden), loss);
}

TEST(Gather, SameBitsWithAnyThreads) {
    std::vector<int32_t> many;
    for (int32_t t = 0; t < 500; ++t) many.push_back(t * t % 13);
    auto in = random_values<float>(13 * 37, 4);
    expect_same_with_any_threads([&] {
        std::vector<float> out(500 * 37);
        gather_rows({}, {.out = tensor_of(out, {500, 37}), .in = tensor_of(in, {13, 37}), .rows = view_of(many)});
        return scatter(in, out, many, 37);
    });
}

TEST(Gather, RefusesBadInput) {
    std::vector<float> in(tokens * hidden), out(2 * hidden);
    const auto run = [&](std::vector<int32_t> of) {
        gather_rows({},
                    {.out = tensor_of(out, {2, hidden}), .in = tensor_of(in, {tokens, hidden}), .rows = view_of(of)});
    };
    expect_error(Exit::internal, "gather_rows: rows[1] is 6, outside [0, 6)", [&] { run({0, 6}); });
    expect_error(Exit::internal, "out is [2, 5] f32 on cpu, expected [3, 5] f32", [&] { run({0, 1, 2}); });
    expect_error(Exit::internal, "scatter_rows: rows[0] is -1", [&] {
        scatter(in, out, std::vector<int32_t>{-1, 0}, hidden);
    });
}

struct GatherOnDevice : DeviceCase {};

TEST_P(GatherOnDevice, PicksRowsAndAddsThemBack) {
    // Runs of equal rows that begin at, end at and cross the borders of a CTA's four rows.
    const std::vector<int32_t> picked{0, 0, 3, 4, 4, 4, 7, 8, 9, 9, 9, 9, 9, 9, 14, 15, 16, 17, 17};
    const int64_t all = 20, count = std::ssize(picked);
    for (const int64_t width : {5, 8, 264, 896, 2056, 4100}) {
        release();
        const Twin from = values({all, width + 8}, 1), index = indices(picked), out = output({count, width});
        run([&](const Context& ctx, auto of) {
            gather_rows(ctx, {.out = of(out), .in = of(from.slice(1, 8, width + 8)), .rows = of(index)});
        });
        expect_close("out", out, {});

        const Twin dout = values({count, width}, 2), din = output({all, width + 8});
        run([&](const Context& ctx, auto of) {
            scatter_rows(ctx, {.din = of(din.slice(1, 0, width)), .dout = of(dout), .rows = of(index)});
        });
        // Six terms below 6 in f32, rounded once.
        expect_close("din", din, {.relative = rounding(), .absolute = 6 * 36 * f32_rounding});
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, GatherOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
