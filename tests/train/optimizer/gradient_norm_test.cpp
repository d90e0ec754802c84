// The gradient norm and its clip factor against a sum in double, whole and over slices.

#include <omp.h>

#include "tests/support/optimizer_case.h"
#include "train/optimizer/adamw.h"

namespace colonnade {
namespace {

class GradientNormTest : public OnDevice {
  protected:
    /// Norm and clip factor.
    std::vector<double> norm_of(const Tensor& gradients, double max_norm = 0) {
        const Tensor out = put(std::vector<double>{0, 0});
        const Tensor sums = make(DType::f64, square_sum_count(gradients.numel()));
        sum_squares(ctx_, {.sums = sums, .gradients = gradients});
        add_up(ctx_, {.total = out.slice(0, 0, 1), .sums = sums});
        clip_factor(ctx_, {.out = out, .max_norm = max_norm});
        return get<double>(out);
    }
};

TEST_P(GradientNormTest, IsThatOfTheWholeBuffer) {
    // Sizes below, at and above those of a thread block on either device.
    for (const int64_t n : {0, 4, 64, 1 << 14, 1 << 15, (1 << 15) + 4, 3 * (1 << 15) - 64, 300'032}) {
        std::vector<float> g(static_cast<size_t>(n));
        double sum = 0;
        for (size_t i = 0; i < g.size(); ++i) {
            g[i] = static_cast<float>(gradient_at(1, i));
            sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
        }
        const Tensor gradients = put(g);
        const double norm = norm_of(gradients)[0];
        // Squares are positive, each sum is rounded at most n times, and the root halves the error.
        EXPECT_NEAR(norm, std::sqrt(sum), static_cast<double>(n + 2) * 0x1p-53 * norm) << n;
        EXPECT_EQ(norm_of(gradients)[0], norm);
    }
}

TEST_P(GradientNormTest, AddsUpOverSlices) {
    constexpr int64_t n = 100'032;
    std::vector<float> g(static_cast<size_t>(n));
    for (size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(gradient_at(1, i));
    const Tensor gradients = put(g), out = put(std::vector<double>{0, 0});
    const int64_t borders[] = {0, 64, 40'000, 40'000, n};
    for (size_t i = 0; i + 1 < std::size(borders); ++i) {
        const Tensor slice = gradients.slice(0, borders[i], borders[i + 1]);
        const Tensor sums = make(DType::f64, square_sum_count(slice.numel()));
        sum_squares(ctx_, {.sums = sums, .gradients = slice});
        add_up(ctx_, {.total = out.slice(0, 0, 1), .sums = sums});
    }
    clip_factor(ctx_, {.out = out, .max_norm = 1});
    const std::vector<double> found = get<double>(out), whole = norm_of(gradients, 1);
    EXPECT_NEAR(found[0], whole[0], static_cast<double>(n) * 0x1p-53 * whole[0]);
    EXPECT_NEAR(found[1], whole[1], static_cast<double>(n) * 0x1p-53 * whole[1]);
}

TEST_P(GradientNormTest, GivesTheClipFactor) {
    const Tensor gradients = put(std::vector<float>(64, 0.5f));  // norm 4
    for (const auto& [max_norm, factor] :
         {std::pair{0.0, 1.0}, {0.1, 0.1 / (4 + 1e-6)}, {4.0, 4 / (4 + 1e-6)}, {5.0, 1.0}, {1e9, 1.0}}) {
        const auto out = norm_of(gradients, max_norm);
        EXPECT_EQ(out[0], 4);
        EXPECT_DOUBLE_EQ(out[1], factor);
    }
    EXPECT_EQ(norm_of(put(std::vector<float>(64)), 1), (std::vector<double>{0, 1}));
}

TEST_P(GradientNormTest, ReportsNonFiniteGradientsAndTakesLargeOnes) {
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
        for (const size_t at : {size_t{0}, size_t{40'003}, size_t{65'535}}) {
            std::vector<float> g(65'536, 0.5f);
            g[at] = bad;
            EXPECT_FALSE(std::isfinite(norm_of(put(g), 1)[0]));
            EXPECT_TRUE(std::isnan(norm_of(put(g), 1)[1]));
        }
    const double large = norm_of(put(std::vector<float>(1 << 16, 0x1p127f)))[0];
    EXPECT_DOUBLE_EQ(large, 0x1p127 * 256);
}

INSTANTIATE_TEST_SUITE_P(Devices, GradientNormTest,
                         testing::Values(Place{Device::cpu, DType::f32, DType::f32},
                                         Place{Device::cuda, DType::f32, DType::f32}),
                         name_of_place);

TEST(GradientNormOnTheCpu, IsTheSameOnAnyNumberOfThreads) {
    std::vector<float> g(100'003);
    for (size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(gradient_at(1, i));
    const auto norm = [&] {
        std::vector<double> sums(static_cast<size_t>(square_sum_count(std::ssize(g))));
        const Tensor found(sums.data(), DType::f64, {std::ssize(sums)});
        sum_squares(Context(), {.sums = found, .gradients = Tensor(g.data(), DType::f32, {std::ssize(g)})});
        double total = 0;
        add_up(Context(), {.total = Tensor(&total, DType::f64, {1}), .sums = found});
        return total;
    };
    omp_set_num_threads(1);
    const double alone = norm();
    for (const int threads : {2, 3, 7}) {
        omp_set_num_threads(threads);
        EXPECT_EQ(norm(), alone) << threads << " threads";
    }
}

}  // namespace
}  // namespace colonnade
