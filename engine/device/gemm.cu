// GEMM on the GPU by cuBLASLt, which is column-major: a row-major C = op(A) op(B) is the column-major
// C' = op(B)' op(A)' over the same memory, so B is passed first.

#include <map>
#include <tuple>

#include "engine/device/arena.h"
#include "engine/device/gemm.h"
#include "engine/device/gpu.cuh"
#include "engine/device/gpu_state.cuh"
#include "engine/device/opened_cublaslt.h"

namespace colonnade {

// One plan per shape, chosen once by cuBLASLt's heuristics, never by timing, so that runs are reproducible.
struct Gpu::State::Products {
    struct Plan {
        cublasLtMatmulDesc_t operation = nullptr;
        cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
        cublasLtMatmulAlgo_t algorithm{};
        size_t workspace_bytes = 0;
    };
    /// m, n, k, lda, ldb, ldc, e4m3, f32 output, transposes, bias, accumulation, alignments
    using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool, bool, bool, bool, bool,
                           int, int, int>;
    static constexpr size_t workspace_limit = size_t{64} << 20;
    static constexpr size_t most_plans = 4096;  ///< the number of rows differs from batch to batch
    cublasLtHandle_t blas = nullptr;
    std::shared_ptr<void> workspace;
    std::map<Key, Plan> plans;
    ~Products() {
        forget_plans();
        if (blas) cublasLtDestroy(blas);
    }
    void forget_plans() {
        for (auto& [key, plan] : plans) {
            cublasLtMatmulDescDestroy(plan.operation);
            for (const cublasLtMatrixLayout_t l : {plan.a, plan.b, plan.c}) cublasLtMatrixLayoutDestroy(l);
        }
        plans.clear();
    }
};

namespace {

using Products = Gpu::State::Products;

void check_blas(cublasStatus_t status, const char* what) {
    if (status != CUBLAS_STATUS_SUCCESS)
        fail(Exit::peer, "cuBLASLt failed: {}: {}", what, cublasLtGetStatusString(status));
}

/// The largest power of two up to 256 that divides the address.
int alignment_of(const void* p) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    return static_cast<int>(address ? std::min<uintptr_t>(address & (~address + 1), 256) : 256);
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t leading) {
    cublasLtMatrixLayout_t result = nullptr;
    check_blas(
        cublasLtMatrixLayoutCreate(&result, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), leading),
        "a matrix layout");
    return result;
}

template <typename T>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check_blas(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), "an attribute");
}

template <typename T>
void prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "a preference");
}

bool is_fp8(const Gemm& g) {
    return g.a.dtype == DType::u8;
}

#if CUBLAS_VER_MAJOR > 12 || (CUBLAS_VER_MAJOR == 12 && CUBLAS_VER_MINOR >= 9)
constexpr bool knows_block_scales = true;
void set_scale_modes(cublasLtMatmulDesc_t operation) {
    set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
        static_cast<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F));
    set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, static_cast<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F));
}
#else
constexpr bool knows_block_scales = false;
void set_scale_modes(cublasLtMatmulDesc_t) {
    fail(Exit::internal, "a product in e4m3 by a cuBLASLt before 12.9");
}
#endif

/// What differs between products of one plan.
void set_pointers(cublasLtMatmulDesc_t operation, const Gemm& g) {
    if (!g.bias.empty()) set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias.data);
    if (!is_fp8(g)) return;
    set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, g.b_scales.data);
    set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, g.a_scales.data);
}

Products::Plan make_plan(cublasLtHandle_t blas, const Gemm& g) {
    Products::Plan plan;
    const int64_t m = g.m(), n = g.n(), k = g.k();
    const int64_t lda = g.a.stride[0], ldb = g.b.stride[0], ldc = g.c.stride[0];
    const cudaDataType_t output = g.c.dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
    check_blas(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation");
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!g.bias.empty()) {
        set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_16BF));
    }
    if (is_fp8(g)) set_scale_modes(plan.operation);
    set_pointers(plan.operation, g);
    const cudaDataType_t input = is_fp8(g) ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
    plan.a = g.transpose_b ? layout(input, k, n, ldb) : layout(input, n, k, ldb);
    plan.b = g.transpose_a ? layout(input, m, k, lda) : layout(input, k, m, lda);
    plan.c = layout(output, n, m, ldc);

    cublasLtMatmulPreference_t preference = nullptr;
    check_blas(cublasLtMatmulPreferenceCreate(&preference), "a preference");
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Products::workspace_limit);
    // Split-k partial sums are added in f32 and in a fixed order: not in place, and not in bf16.
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(alignment_of(g.b.data)));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(alignment_of(g.a.data)));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(alignment_of(g.c.data)));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(alignment_of(g.c.data)));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(blas, plan.operation, plan.a, plan.b, plan.c, plan.c,
                                                                 preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0)
        fail(Exit::internal, "cuBLASLt has no algorithm for C [{}, {}] {}, k {}, lda {}, ldb {}, ldc {}", m, n,
             g.c.dtype, k, lda, ldb, ldc);
    plan.algorithm = found.algo;
    plan.workspace_bytes = found.workspaceSize;
    return plan;
}

}  // namespace

void Gpu::State::open_products() {
    auto opened = std::make_shared<Products>();
    check_blas(cublasLtCreate(&opened->blas), "cublasLtCreate");
    opened->workspace = allocate_on_gpu(Products::workspace_limit);
    products = std::move(opened);
}

bool cuda::gemm_takes_fp8() {
    return knows_block_scales;
}

void cuda::gemm(const Context& ctx, const Gemm& g) {
    require((is_fp8(g) || g.a.dtype == DType::bf16) && g.b.dtype == g.a.dtype &&
                (g.c.dtype == DType::bf16 || g.c.dtype == DType::f32),
            "gemm: {} x {} -> {}", g.a.dtype, g.b.dtype, g.c.dtype);
    require(g.bias.empty() || g.bias.dtype == DType::bf16, "gemm: bias is {}, expected bf16", g.bias);
    const PhaseTimer timer(ctx, "gemm");
    Gpu::State& state = ctx.gpu->state();
    if (!state.products) state.open_products();
    Products& s = *state.products;
    const Products::Key key{g.m(),
                            g.n(),
                            g.k(),
                            g.a.stride[0],
                            g.b.stride[0],
                            g.c.stride[0],
                            is_fp8(g),
                            g.c.dtype == DType::f32,
                            g.transpose_a,
                            g.transpose_b,
                            !g.bias.empty(),
                            g.beta != 0,
                            alignment_of(g.a.data),
                            alignment_of(g.b.data),
                            alignment_of(g.c.data)};
    auto plan = s.plans.find(key);
    if (plan == s.plans.end()) {
        if (s.plans.size() >= Products::most_plans) s.forget_plans();
        plan = s.plans.emplace(key, make_plan(s.blas, g)).first;
    }
    set_pointers(plan->second.operation, g);
    const auto alpha = static_cast<float>(g.alpha), beta = static_cast<float>(g.beta);
    check_blas(cublasLtMatmul(s.blas, plan->second.operation, &alpha, g.b.data, plan->second.a, g.a.data,
                              plan->second.b, &beta, g.c.data, plan->second.c, g.c.data, plan->second.c,
                              &plan->second.algorithm, s.workspace.get(), plan->second.workspace_bytes, state.stream),
               "a product");
}

}  // namespace colonnade
