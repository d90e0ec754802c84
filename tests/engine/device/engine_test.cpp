// Errors, Tensor, Arena, Philox, vexp and GEMM.

#include <gtest/gtest.h>
#include <omp.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/device/arena.h"
#include "engine/device/gemm.h"
#include "engine/device/philox.h"
#include "engine/device/vector_math.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

// --- Errors ----------------------------------------------------------------------------------------------------------

TEST(RunProgram, TurnsExceptionsIntoOneLineAndAnExitCode) {
    const auto run = [](const std::function<int()>& body) {
        testing::internal::CaptureStderr();
        const int code = run_program("prog", body);
        return fmt::format("{} {}", code, testing::internal::GetCapturedStderr());
    };
    EXPECT_EQ(run([] { return 0; }), "0 ");
    EXPECT_EQ(run([] { return 1; }), "1 ");
    EXPECT_EQ(run([]() -> int { fail(Exit::config, "{}: no key '{}'", "a.yaml", "x"); }),
              "2 prog: error: a.yaml: no key 'x'\n");
    EXPECT_EQ(run([]() -> int { fail(Exit::storage, "full"); }), "7 prog: error: full\n");
    const std::string out_of_memory = run([]() -> int { throw std::bad_alloc(); });
    EXPECT_TRUE(out_of_memory.starts_with("8 prog: error: out of memory: ")) << out_of_memory;
    EXPECT_TRUE(out_of_memory.ends_with(" in use\n")) << out_of_memory;
    EXPECT_EQ(run([]() -> int { throw std::logic_error("oops"); }), "9 prog: error: internal: oops\n");
    EXPECT_NO_THROW(require(true, "held"));
    expect_error(Exit::internal, "broken 7", [] { require(false, "broken {}", 7); });
}

// --- Tensor ----------------------------------------------------------------------------------------------------------

TEST(Tensor, ViewsAndSlices) {
    std::vector<float> data(2 * 3 * 4);
    const Tensor t(data.data(), DType::f32, {2, 3, 4});
    EXPECT_EQ(t.numel(), 24);
    EXPECT_EQ(t.bytes(), 96u);
    EXPECT_EQ(t.stride, (std::array<int64_t, 4>{12, 4, 1, 0}));
    EXPECT_TRUE(t.contiguous());
    EXPECT_EQ(describe(t), "[2, 3, 4] f32");

    const Tensor rows = t.slice(0, 1, 2);
    EXPECT_EQ(rows.as<float>(), data.data() + 12);
    EXPECT_TRUE(rows.contiguous()) << "one block";
    const Tensor columns = t.slice(2, 1, 3);
    EXPECT_EQ(columns.as<float>(), data.data() + 1);
    EXPECT_EQ(describe(columns), "[2, 3, 2] f32");
    EXPECT_FALSE(columns.contiguous());
    EXPECT_TRUE(t.slice(0, 0, 1).slice(1, 0, 1).slice(2, 1, 3).contiguous())
        << "strides of length-1 dimensions do not count";
    EXPECT_EQ(t.slice(1, 3, 3).numel(), 0);

    const Tensor flat = t.view({6, 4});
    EXPECT_EQ(flat.as<float>(), data.data());
    EXPECT_EQ(flat.stride[0], 4);
    EXPECT_EQ(Tensor(data.data(), DType::f32, {}).numel(), 1);
    EXPECT_TRUE(Tensor().empty());
}

TEST(Tensor, RefusesMisuse) {
    std::vector<double> data(6);
    const Tensor t(data.data(), DType::f64, {2, 3});
    expect_error(Exit::internal, "tensor holds f64, requested as f32", [&] { (void)t.as<float>(); });
    expect_error(Exit::internal, "cannot view [2, 3] f64 as [4, 2] f64", [&] { (void)t.view({4, 2}); });
    expect_error(Exit::internal, "cannot view [2, 2] f64", [&] { (void)t.slice(1, 0, 2).view({4}); });
    expect_error(Exit::internal, "slice 1:4 of dim 1", [&] { (void)t.slice(1, 1, 4); });
    expect_error(Exit::internal, "slice 2:1 of dim 0", [&] { (void)t.slice(0, 2, 1); });
    expect_error(Exit::internal, "slice 0:1 of dim 2", [&] { (void)t.slice(2, 0, 1); });
    expect_error(Exit::internal, "at most 4 dimensions, not 5", [&] { Tensor(nullptr, DType::u8, {1, 1, 1, 1, 1}); });
    expect_error(Exit::internal, "no CPU kernel for bf16", [] { dispatch_float(DType::bf16, []<typename T>() {}); });
}

TEST(Tensor, DispatchPicksTheType) {
    size_t bytes = 0;
    const auto body = [&]<typename T>() { bytes = sizeof(T); };
    dispatch_float(DType::f32, body);
    EXPECT_EQ(bytes, 4u);
    dispatch_float(DType::f64, body);
    EXPECT_EQ(bytes, 8u);
}

// --- Arena -----------------------------------------------------------------------------------------------------------

// A planning arena and a real one place the same buffers in the same bytes.
TEST(Arena, LaysOutInMemoryOfTheCaller) {
    alignas(256) char memory[1024];
    {
        Arena arena(Device::cpu, memory, sizeof memory);
        EXPECT_FALSE(arena.planning());
        EXPECT_EQ(arena.tensor("a", DType::f32, {3}).data, memory);
        EXPECT_EQ(arena.tensor("b", DType::u8, {512}).data, memory + 256);
        expect_error(Exit::internal, "cannot hold", [&] { arena.tensor("c", DType::f64, {33}); });
    }
    expect_error(Exit::internal, "in no memory", [] { Arena(Device::cpu, nullptr, 10); });
}

TEST(Arena, PlanHoldsTheLayout) {
    std::vector<Tensor> tensors;
    const auto lay_out = [&](Arena& arena) {
        tensors = {arena.tensor("weights", DType::f32, {3, 5}), arena.tensor("ids", DType::i64, {100})};
        const size_t mark = arena.mark();
        tensors.push_back(arena.tensor("scratch", DType::f64, {1000}));
        arena.release(mark);
        tensors.push_back(arena.tensor("scratch", DType::f32, {10}));
        tensors.push_back(arena.tensor("weights", DType::u8, {1}));
    };
    Arena plan(Device::cpu);
    lay_out(plan);
    EXPECT_TRUE(plan.planning());
    EXPECT_TRUE(tensors[0].empty());
    EXPECT_EQ(plan.bytes(), 256u + 1024 + 8192) << "the larger of the two that share scratch memory";
    EXPECT_EQ(plan.groups(),
              (std::vector<std::pair<std::string, size_t>>{{"weights", 512}, {"ids", 1024}, {"scratch", 8192 + 256}}));
    EXPECT_NE(plan.table().find("peak                         9.25 KiB"), std::string::npos) << plan.table();

    Arena arena(Device::cpu, plan.bytes());
    lay_out(arena);
    EXPECT_EQ(arena.bytes(), plan.bytes());
    EXPECT_EQ(tensors[2].data, tensors[3].data) << "scratch is shared";
    for (const Tensor& t : tensors) EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data) % Arena::alignment, 0u);
    const double* zeroed = tensors[2].as<double>();
    EXPECT_EQ(std::count(zeroed, zeroed + 1000, 0.0), 1000);
    expect_error(Exit::internal, "cannot hold", [&] { arena.tensor("more", DType::f64, {1000}); });
    expect_error(Exit::memory, "not enough memory: 4096.0 TiB requested", [] { Arena(Device::cpu, size_t{1} << 52); });
}

// --- Philox ----------------------------------------------------------------------------------------------------------

// The known-answer vectors of Random123 for philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
    using Words = std::array<uint32_t, 4>;
    const uint32_t ones = 0xffffffff;
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
    // The block takes index, stream and seed in this order, low words first.
    const Philox random{.seed = 0x299f31d0a4093822, .stream = 0x0370734413198a2e};
    EXPECT_EQ(random.bits(0x85a308d3243f6a88), 0xd16cfe0994fdcceb);
}

TEST(Philox, Distributions) {
    const Philox random{.seed = 11, .stream = 5};
    constexpr int n = 200'000, buckets = 10;
    double sum = 0, squares = 0, fourths = 0;
    std::array<int, buckets> uniform{}, below{};
    for (uint64_t i = 0; i < n; ++i) {
        const double u = random.uniform(i), z = random.normal(i);
        ASSERT_TRUE(u >= 0 && u < 1 && std::isfinite(z));
        ++uniform[static_cast<size_t>(u * buckets)];
        ++below[static_cast<size_t>(random.below(i, buckets))];
        sum += z, squares += z * z, fourths += z * z * z * z;
    }
    // Five standard deviations of each estimate.
    const double bucket_error = 5 * std::sqrt(n * 0.1 * 0.9);
    for (size_t b = 0; b < buckets; ++b) {
        EXPECT_NEAR(uniform[b], n / buckets, bucket_error);
        EXPECT_NEAR(below[b], n / buckets, bucket_error);
    }
    EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
    EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
    EXPECT_NEAR(fourths / n, 3, 5 * std::sqrt(96.0 / n));
    EXPECT_EQ(random.below(3, 1), 0u);
    EXPECT_NE(Philox(random).bits(0), (Philox{11, 6}.bits(0)));
    EXPECT_NE(Philox(random).bits(0), (Philox{12, 5}.bits(0)));
}

// --- exp -------------------------------------------------------------------------------------------------------------

TEST(Vexp, WithinTwoUlp) {
    const float low = -87.3f, high = 88.7f;
    double worst = 0;
    float worst_at = 0;
    const auto check = [&](float x) {
        const double exact = std::exp(static_cast<double>(x)), got = vexp(x);
        const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
        if (const double error = std::abs(got - exact) / ulp; error > worst) worst = error, worst_at = x;
    };
    for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(high); bits += 509) check(std::bit_cast<float>(bits));
    for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(-low); bits += 509) check(-std::bit_cast<float>(bits));
    check(low), check(high);
    EXPECT_LE(worst, 2.0) << "at " << worst_at;
    RecordProperty("worst_ulp", fmt::format("{:.3f} at {}", worst, worst_at));
}

TEST(Vexp, Ends) {
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(vexp(0.0f), 1.0f);
    EXPECT_EQ(vexp(-infinity), 0.0f) << "needed for hidden keys";
    EXPECT_EQ(vexp(std::nextafter(-87.3f, -infinity)), 0.0f);
    EXPECT_GE(vexp(-87.3f), std::numeric_limits<float>::min());
    EXPECT_EQ(vexp(infinity), vexp(88.7f)) << "finite: it saturates";
    EXPECT_TRUE(std::isfinite(vexp(infinity)));
    EXPECT_TRUE(std::isnan(vexp(std::numeric_limits<float>::quiet_NaN())));
    EXPECT_EQ(vexp(1.0), std::exp(1.0));
}

// --- GEMM ------------------------------------------------------------------------------------------------------------

struct Shape {
    int64_t m, n, k;
};

template <typename T>
void check_gemm(const Shape& s, bool transpose_a, bool transpose_b, T alpha, T beta) {
    // Leading dimensions larger than the rows: the elements in between must be neither read nor written.
    const int64_t lda = (transpose_a ? s.m : s.k) + 3, ldb = (transpose_b ? s.k : s.n) + 1, ldc = s.n + 2;
    const auto filled = [stream = uint64_t{0}](int64_t rows, int64_t width) mutable {
        std::vector<T> v(static_cast<size_t>(rows * width));
        const Philox random{.seed = 3, .stream = stream++};
        for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(random.normal(i));
        return v;
    };
    auto make = filled;
    std::vector<T> a = make(transpose_a ? s.k : s.m, lda), b = make(transpose_b ? s.n : s.k, ldb);
    std::vector<T> c = make(s.m, ldc);
    if (beta == 0)  // then C is written, not read
        for (int64_t i = 0; i < s.m; ++i) std::fill_n(c.begin() + i * ldc, s.n, std::numeric_limits<T>::quiet_NaN());
    const std::vector<T> before = c;
    Profile profile;
    const auto matrix = [](std::vector<T>& v, int64_t ld, int64_t columns) {
        return view_of(v).view({std::ssize(v) / ld, ld}).slice(1, 0, columns);
    };
    gemm({.profile = &profile}, {.c = matrix(c, ldc, s.n),
                                 .a = matrix(a, lda, transpose_a ? s.m : s.k),
                                 .b = matrix(b, ldb, transpose_b ? s.k : s.n),
                                 .transpose_a = transpose_a,
                                 .transpose_b = transpose_b,
                                 .alpha = alpha,
                                 .beta = beta});
    const bool changes_c = s.m * s.n > 0 && (s.k > 0 || beta != 1);
    EXPECT_EQ(profile.seconds().count("gemm"), changes_c ? 1u : 0u);
    for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < ldc; ++j) {
            const auto at = static_cast<size_t>(i * ldc + j);
            if (j >= s.n) {
                ASSERT_EQ(c[at], before[at]) << "between the rows";
                continue;
            }
            double sum = 0, size = 0;  // sum of |products|, for the rounding bound
            for (int64_t k = 0; k < s.k; ++k) {
                const double product =
                    static_cast<double>(a[static_cast<size_t>(transpose_a ? k * lda + i : i * lda + k)]) *
                    b[static_cast<size_t>(transpose_b ? j * ldb + k : k * ldb + j)];
                sum += product;
                size += std::abs(product);
            }
            const double kept = beta == 0 ? 0 : static_cast<double>(beta) * before[at];
            const double bound = static_cast<double>(s.k + 3) * std::numeric_limits<T>::epsilon() *
                                 (std::abs(alpha) * size + std::abs(kept));
            ASSERT_NEAR(c[at], alpha * sum + kept, bound) << i << "," << j << " of " << s.m << "x" << s.n << "x" << s.k;
        }
}

TEST(GemmTest, EqualsTheNaiveLoop) {
    const Shape shapes[] = {{1, 1, 1},    {1, 7, 5},     {7, 1, 5}, {5, 7, 1}, {16, 16, 16},
                            {33, 17, 65}, {64, 130, 31}, {3, 4, 0}, {0, 4, 3}, {4, 0, 3}};
    for (const Shape& shape : shapes)
        for (const bool transpose_a : {false, true})
            for (const bool transpose_b : {false, true})
                for (const double alpha : {1.0, -0.5})
                    for (const double beta : {0.0, 1.0, 0.25}) {
                        check_gemm<float>(shape, transpose_a, transpose_b, static_cast<float>(alpha),
                                          static_cast<float>(beta));
                        check_gemm<double>(shape, transpose_a, transpose_b, alpha, beta);
                    }
}

template <typename T>
std::vector<T> product(const Shape& shape, bool transpose_a, bool transpose_b, int threads) {
    const auto [m, n, k] = shape;
    std::vector<T> a(static_cast<size_t>(m * k)), b(static_cast<size_t>(k * n)), c(static_cast<size_t>(m * n));
    const Philox random{5, 1};
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<T>(random.normal(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<T>(random.normal(a.size() + i));
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    const auto matrix = [](std::vector<T>& v, bool transposed, int64_t rows, int64_t columns) {
        return transposed ? view_of(v).view({columns, rows}) : view_of(v).view({rows, columns});
    };
    gemm({}, {.c = matrix(c, false, m, n),
              .a = matrix(a, transpose_a, m, k),
              .b = matrix(b, transpose_b, k, n),
              .transpose_a = transpose_a,
              .transpose_b = transpose_b});
    omp_set_num_threads(before);
    return c;
}

// Shapes large enough for gemm to work in blocks, with a long inner dimension and ragged edges.
TEST(GemmTest, BitsDoNotDependOnThreads) {
    for (const Shape& shape : {Shape{300, 200, 700}, Shape{65, 1000, 333}, Shape{1100, 70, 40}})
        for (const bool transpose_a : {false, true})
            for (const bool transpose_b : {false, true})
                for (const int threads : {2, 3, 5}) {
                    EXPECT_EQ(product<float>(shape, transpose_a, transpose_b, 1),
                              product<float>(shape, transpose_a, transpose_b, threads));
                    EXPECT_EQ(product<double>(shape, transpose_a, transpose_b, 1),
                              product<double>(shape, transpose_a, transpose_b, threads));
                }
}

TEST(GemmTest, AddsABiasToEveryRow) {
    std::vector<double> a = {1, 2, 3, 4}, b = {1, 0, 2, 0, 1, 3}, bias = {10, 20, 30}, c(6);
    const Tensor out = view_of(c).view({2, 3});
    const Gemm call{.c = out, .a = view_of(a).view({2, 2}), .b = view_of(b).view({2, 3}), .bias = view_of(bias)};
    gemm({}, call);
    EXPECT_EQ(c, (std::vector<double>{11, 22, 38, 13, 24, 48}));
    Gemm both = call;
    both.beta = 1;
    expect_error(Exit::internal, "gemm: bias is [3] f64 with beta 1, expected [3] with 0", [&] { gemm({}, both); });
}

TEST(GemmTest, RefusesOperandsThatDoNotFit) {
    std::vector<float> a(6), b(6), c(4);
    const Tensor x = view_of(a).view({2, 3}), y = view_of(b).view({3, 2}), z = view_of(c).view({2, 2});
    expect_error(Exit::internal, "gemm: b is [2, 3] f32 on cpu, expected [3, 2] on cpu", [&] {
        gemm({}, {.c = z, .a = x, .b = y.view({2, 3})});
    });
    expect_error(Exit::internal, "gemm: a is [3, 2] f32 on cpu, expected [2, 2] on cpu",
                 [&] { gemm({}, {.c = z, .a = y, .b = z}); });
    std::vector<double> wide(6);
    expect_error(Exit::internal, "tensor holds f64, requested as f32", [&] {
        gemm({}, {.c = z, .a = view_of(wide).view({2, 3}), .b = y});
    });
}

TEST(GemmTest, BlocksEqualTheNaiveLoop) {
    for (const bool transpose_a : {false, true})
        for (const bool transpose_b : {false, true}) {
            check_gemm<float>({150, 601, 70}, transpose_a, transpose_b, 1.0f, 0.5f);
            check_gemm<double>({150, 601, 70}, transpose_a, transpose_b, 1.0, 0.5);
        }
}

}  // namespace
}  // namespace colonnade
