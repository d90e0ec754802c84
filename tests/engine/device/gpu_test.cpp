// Memory, copies, streams and GEMM on a GPU.

#include "engine/device/gpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <thread>

#include "engine/device/arena.h"
#include "engine/device/gemm.h"
#include "engine/device/host_copy.h"
#include "engine/device/philox.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

class GpuTest : public testing::Test {
  protected:
    void SetUp() override {
        if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
    static Gpu& gpu() { return *test_gpu(); }
    static Context context() { return {.device = Device::cuda, .gpu = test_gpu()}; }
};

TEST_F(GpuTest, UploadsAndDownloadsMoreThanTheStagingMemoryHolds) {
    const int64_t n = (int64_t{80} << 20) / 4 + 3;  // 80 MiB through two halves of 32
    std::vector<int32_t> values(static_cast<size_t>(n)), back(values.size());
    std::iota(values.begin(), values.end(), 7);
    const std::vector<int32_t> expected = values;
    Arena arena(Device::cuda, static_cast<size_t>(2 * n) * 4 + 2 * Arena::alignment);
    const Tensor a = arena.tensor("a", DType::i32, {n}), b = arena.tensor("b", DType::i32, {n});
    gpu().download(back.data(), a);
    EXPECT_EQ(back, std::vector<int32_t>(values.size())) << "an arena is zeroed";
    gpu().upload(a, values.data());
    std::fill(values.begin(), values.end(), -1);  // upload() has copied them
    gpu().copy(b, a);
    gpu().zero(a);
    gpu().download(back.data(), b);
    EXPECT_EQ(back, expected);
    gpu().download(back.data(), a);
    EXPECT_EQ(back, std::vector<int32_t>(values.size()));
}

TEST_F(GpuTest, ReadbacksReturnTheContentAtTheTimeOfEnqueue) {
    Arena arena(Device::cuda, 4096);
    const Tensor x = arena.tensor("x", DType::f64, {3});
    const std::vector<double> first = {1, 2, 3}, second = {4, 5, 6};
    Readback early(gpu(), x.bytes()), late(gpu(), x.bytes());
    gpu().upload(x, first.data());
    early.enqueue(x);
    gpu().upload(x, second.data());
    late.enqueue(x);
    const auto values = [](Readback& r) {
        const auto* p = static_cast<const double*>(r.get());
        return std::vector<double>(p, p + 3);
    };
    EXPECT_EQ(values(late), second);
    EXPECT_EQ(values(early), first);
}

TEST_F(GpuTest, SideCopiesSeeWhatCameBeforeThem) {
    const int64_t n = 5 << 20;
    Arena arena(Device::cuda, 64 << 20), host = Arena::in_host_memory(&gpu(), 64 << 20);
    const Tensor x = arena.tensor("x", DType::f32, {n}), y = arena.tensor("y", DType::i64, {3}),
                 to_x = host.tensor("x", DType::f32, {n}), to_y = host.tensor("y", DType::i64, {3});
    SideCopy side(gpu());
    side.hold();  // nothing to wait for
    for (int round = 1; round <= 3; ++round) {
        const std::vector<float> before(static_cast<size_t>(n), static_cast<float>(round));
        const std::vector<int64_t> y_before = {round, -1, int64_t{1} << 60};
        gpu().upload(x, before.data());
        gpu().upload(y, y_before.data());
        side.begin({{to_x.data, x}, {to_y.data, y}});
        side.hold();
        gpu().zero(x);
        gpu().zero(y);
        std::thread([&] { side.wait(); }).join();
        EXPECT_TRUE(std::equal(before.begin(), before.end(), to_x.as<float>())) << "round " << round;
        EXPECT_TRUE(std::equal(y_before.begin(), y_before.end(), to_y.as<int64_t>())) << "round " << round;
    }
}

TEST_F(GpuTest, HostCopiesWidenAndNarrow) {
    Arena arena(Device::cuda, 4096);
    const Tensor x = arena.tensor("x", DType::bf16, {5});
    const HostCopy in = HostCopy::to_fill(&gpu(), x);
    const std::vector<float> values = {0, 1.5f, -2, 0x1p-100f, 3};
    std::copy(values.begin(), values.end(), in.tensor().as<float>());
    in.store();
    const HostCopy out = HostCopy::of(&gpu(), x);
    EXPECT_EQ(std::vector<float>(out.tensor().as<float>(), out.tensor().as<float>() + 5), values);
}

TEST_F(GpuTest, ReportsTheAvailableMemory) {
    expect_error(Exit::memory, "not enough GPU memory: 1024.0 TiB requested, ",
                 [] { Arena(Device::cuda, size_t{1} << 50); });
}

struct Shape {
    int64_t m, n, k;
};

class GpuGemmTest : public GpuTest, public testing::WithParamInterface<std::tuple<Shape, bool, bool, DType, bool>> {};

TEST_P(GpuGemmTest, EqualsTheProductInDouble) {
    const auto [shape, transpose_a, transpose_b, dtype, accumulate] = GetParam();
    const auto [m, n, k] = shape;
    const bool bias = dtype == DType::bf16 && !accumulate;
    const auto random = [](int64_t count, uint64_t stream) {
        std::vector<double> v;
        for (int64_t i = 0; i < count; ++i)
            v.push_back(float_from_bf16(
                bf16_from_float(static_cast<float>(Philox{3, stream}.normal(static_cast<uint64_t>(i))))));
        return v;
    };
    const std::vector<double> a = random(m * k, 1), b = random(k * n, 2), c = random(m * n, 3), add = random(n, 4);
    Arena arena(Device::cuda, size_t{64} << 20);
    const auto on_gpu = [&](const std::vector<double>& v, DType type, std::initializer_list<int64_t> dims) {
        const Tensor t = arena.tensor("t", type, dims);
        const HostCopy host = HostCopy::to_fill(&gpu(), t);
        std::copy(v.begin(), v.end(), host.tensor().as<float>());
        host.store();
        return t;
    };
    const Tensor ta = transpose_a ? on_gpu(a, DType::bf16, {k, m}) : on_gpu(a, DType::bf16, {m, k});
    const Tensor tb = transpose_b ? on_gpu(b, DType::bf16, {n, k}) : on_gpu(b, DType::bf16, {k, n});
    const Tensor tc = on_gpu(c, dtype, {m, n}), tbias = on_gpu(add, DType::bf16, {n});
    gemm(context(), {.c = tc,
                     .a = ta,
                     .b = tb,
                     .transpose_a = transpose_a,
                     .transpose_b = transpose_b,
                     .bias = bias ? tbias : Tensor(),
                     .alpha = 1,
                     .beta = accumulate ? 1.0 : 0.0});
    const HostCopy found = HostCopy::of(&gpu(), tc);
    const auto at = [](const std::vector<double>& v, int64_t i) { return v[static_cast<size_t>(i)]; };
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
            double sum = (accumulate ? at(c, i * n + j) : 0) + (bias ? at(add, j) : 0), size = std::abs(sum);
            for (int64_t x = 0; x < k; ++x) {
                const double product =
                    at(a, transpose_a ? x * m + i : i * k + x) * at(b, transpose_b ? j * k + x : x * n + j);
                sum += product;
                size += std::abs(product);
            }
            // Sums in f32, then one rounding to the output's dtype: 2^-9 of the value. If cuBLASLt adds a C in bf16 or
            // a bias, it may round the product first.
            const double added = (accumulate ? at(c, i * n + j) : 0) + (bias ? at(add, j) : 0);
            const double rounded = std::abs(sum) + std::abs(sum - added);
            const double bound = size * 0x1p-20 + (dtype == DType::bf16 ? rounded * 0x1p-8 : 0);
            ASSERT_NEAR(found.tensor().as<float>()[i * n + j], sum, bound) << i << ", " << j;
        }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GpuGemmTest,
    testing::Combine(testing::Values(Shape{64, 128, 96}, Shape{1, 200, 64}, Shape{33, 17, 51}, Shape{136, 72, 264}),
                     testing::Bool(), testing::Bool(), testing::Values(DType::bf16, DType::f32), testing::Bool()));

TEST_F(GpuTest, WorksOnAStreamOfTheCaller) {
    const std::vector<int32_t> values = {1, 2, 3};
    std::vector<int32_t> found(3);
    Arena arena(Device::cuda, 4096);
    const Tensor x = arena.tensor("x", DType::i32, {3});
    for (CUstream_st* stream : {gpu().stream(), static_cast<CUstream_st*>(nullptr)}) {
        {
            Gpu borrowed(0, stream);
            EXPECT_EQ(borrowed.stream(), stream);
            borrowed.zero(x);
            borrowed.upload(x, values.data());
        }
        gpu().download(found.data(), x);  // the destructor has waited for the copy
        EXPECT_EQ(found, values);
    }
}

TEST_F(GpuTest, OnAStreamOfTheCallerWaitsForNothingItDidNotUse) {
    Arena arena(Device::cuda, size_t{256} << 20);
    const Tensor x = arena.tensor("x", DType::u8, {int64_t{256} << 20});
    for (int i = 0; i < 200; ++i) gpu().zero(x);  // some milliseconds of work
    const auto start = std::chrono::steady_clock::now();
    {
        Gpu borrowed(0, gpu().stream());
        borrowed.zero(x);
        EXPECT_EQ(borrowed.name(), gpu().name());
    }
    const std::chrono::duration<double> enqueued = std::chrono::steady_clock::now() - start;
    gpu().synchronize();
    const std::chrono::duration<double> all = std::chrono::steady_clock::now() - start;
    EXPECT_LT(enqueued.count(), all.count() / 2);
}

TEST_F(GpuTest, MultipliesOnAStreamOfTheCaller) {
    Arena arena(Device::cuda, size_t{1} << 20);
    const Tensor a = arena.tensor("a", DType::bf16, {64, 64}), c = arena.tensor("c", DType::f32, {64, 64});
    gpu().upload(a, std::vector<bf16>(64 * 64, bf16{bf16_from_float(1.0f)}).data());
    gpu().synchronize();
    Gpu borrowed(0, nullptr);
    gemm({.device = Device::cuda, .gpu = &borrowed}, {.c = c, .a = a, .b = a});
    std::vector<float> found(64 * 64);
    borrowed.download(found.data(), c);
    EXPECT_EQ(found, std::vector<float>(64 * 64, 64.0f));
}

TEST_F(GpuTest, TimesPhases) {
    Arena arena(Device::cuda, size_t{64} << 20);
    const Tensor a = arena.tensor("a", DType::bf16, {1024, 1024}), c = arena.tensor("c", DType::f32, {1024, 1024});
    Profile profile;
    Context ctx = context();
    ctx.profile = &profile;
    gemm(ctx, {.c = c, .a = a, .b = a});
    gpu().collect_phases(profile);
    EXPECT_EQ(profile.seconds().size(), 1u);
    EXPECT_GT(profile.seconds().at("gemm"), 0);
}

}  // namespace
}  // namespace colonnade
