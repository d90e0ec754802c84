// GEMM on the GPU by cuBLASLt. It thinks in columns: a row-major C = op(A) op(B) is the column-major C' = op(B)' op(A)'
// over the same memory, so that B comes first.

#include <cmath>

#include "engine/arena.h"
#include "engine/gemm.h"
#include "engine/gpu.cuh"
#include "engine/gpu_state.cuh"

namespace colonnade {
namespace {

void check_blas(cublasStatus_t status, const char* what) {
    if (status != CUBLAS_STATUS_SUCCESS) fail(Exit::peer, "cuBLASLt failed: {}: {}", what, cublasLtGetStatusString(status));
}

/// The largest power of two up to 256 that divides the address.
int alignment_of(const void* p) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    return static_cast<int>(address ? std::min<uintptr_t>(address & (~address + 1), 256) : 256);
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t leading) {
    cublasLtMatrixLayout_t result = nullptr;
    check_blas(cublasLtMatrixLayoutCreate(&result, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), leading),
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

Gpu::State::GemmPlan make_plan(cublasLtHandle_t blas, const GpuGemm& g) {
    Gpu::State::GemmPlan plan;
    const int64_t lda = g.a.stride[0], ldb = g.b.stride[0], ldc = g.c.stride[0];
    const cudaDataType_t output = g.c.dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
    check_blas(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation");
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!g.bias.empty()) {
        set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_16BF));
        set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias.data);
    }
    plan.a = g.transpose_b ? layout(CUDA_R_16BF, g.k, g.n, ldb) : layout(CUDA_R_16BF, g.n, g.k, ldb);
    plan.b = g.transpose_a ? layout(CUDA_R_16BF, g.m, g.k, lda) : layout(CUDA_R_16BF, g.k, g.m, lda);
    plan.c = layout(output, g.n, g.m, ldc);

    cublasLtMatmulPreference_t preference = nullptr;
    check_blas(cublasLtMatmulPreferenceCreate(&preference), "a preference");
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Gpu::State::workspace_limit);
    // Where k is cut into pieces, they are added up in f32 and in a fixed order: not in place, and not in bf16.
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(alignment_of(g.b.data)));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(alignment_of(g.a.data)));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(alignment_of(g.c.data)));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(alignment_of(g.c.data)));
    cublasLtMatmulHeuristicResult_t found[Gpu::State::gemm_candidates]{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(blas, plan.operation, plan.a, plan.b, plan.c, plan.c, preference,
                                       Gpu::State::gemm_candidates, found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0)
        fail(Exit::internal, "cuBLASLt has no algorithm for C [{}, {}] {}, k {}, lda {}, ldb {}, ldc {}", g.m, g.n,
             name_of(g.c.dtype), g.k, lda, ldb, ldc);
    for (int i = 0; i < count; ++i)
        if (found[i].state == CUBLAS_STATUS_SUCCESS) plan.candidates.push_back({found[i].algo, found[i].workspaceSize});
    if (plan.candidates.empty()) fail(Exit::internal, "cuBLASLt has no algorithm that runs");
    return plan;
}

cublasStatus_t multiply(const Gpu::State& s, const Gpu::State::GemmPlan& plan,
                        const Gpu::State::GemmPlan::Candidate& candidate, const GpuGemm& g) {
    return cublasLtMatmul(s.blas, plan.operation, &g.alpha, g.b.data, plan.a, g.a.data, plan.b, &g.beta, g.c.data, plan.c,
                          g.c.data, plan.c, &candidate.algorithm, s.workspace.get(), candidate.workspace_bytes, s.stream);
}

/// The candidate that is fastest at this very product: each runs once unwatched, then three times. Waits for the GPU.
/// Only for products that overwrite C, which may be made again and again.
size_t fastest(const Gpu::State& s, const Gpu::State::GemmPlan& plan, const GpuGemm& g) {
    cudaEvent_t begin = nullptr, end = nullptr;
    check_cuda(cudaEventCreate(&begin), "an event");
    check_cuda(cudaEventCreate(&end), "an event");
    size_t best = 0;
    float best_ms = INFINITY;
    for (size_t i = 0; i < plan.candidates.size(); ++i) {
        if (multiply(s, plan, plan.candidates[i], g) != CUBLAS_STATUS_SUCCESS) continue;
        float least_ms = INFINITY;
        for (int repeat = 0; repeat < 3; ++repeat) {
            check_cuda(cudaEventRecord(begin, s.stream), "an event");
            check_blas(multiply(s, plan, plan.candidates[i], g), "a product");
            check_cuda(cudaEventRecord(end, s.stream), "an event");
            check_cuda(cudaEventSynchronize(end), "a product");
            float ms = 0;
            check_cuda(cudaEventElapsedTime(&ms, begin, end), "the time of a product");
            least_ms = std::min(least_ms, ms);
        }
        if (least_ms < best_ms) best = i, best_ms = least_ms;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return best;
}

void check_operand(const char* name, const Tensor& t, int64_t rows, int64_t columns) {
    const bool held = t.rank == 2 && t.device == Device::cuda && t.size(0) == rows && t.size(1) == columns && t.stride[1] == 1;
    if (!held) fail(Exit::internal, "gemm: {} is {} on {}, expected [{}, {}] on cuda", name, describe(t), name_of(t.device), rows, columns);
}

}  // namespace

void Gpu::State::open_gemm() {
    check_blas(cublasLtCreate(&blas), "cublasLtCreate");
    workspace = allocate_on_gpu(workspace_limit);
}

void Gpu::State::close_gemm() {
    for (auto& [key, plan] : gemm_plans) {
        cublasLtMatmulDescDestroy(plan.operation);
        for (const cublasLtMatrixLayout_t l : {plan.a, plan.b, plan.c}) cublasLtMatrixLayoutDestroy(l);
    }
    if (blas) cublasLtDestroy(blas);
}

void gemm(const Context& ctx, const GpuGemm& g) {
    if (g.m == 0 || g.n == 0) return;
    check_operand("a", g.a, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k);
    check_operand("b", g.b, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n);
    check_operand("c", g.c, g.m, g.n);
    require(g.a.dtype == DType::bf16 && g.b.dtype == DType::bf16 && (g.c.dtype == DType::bf16 || g.c.dtype == DType::f32),
            "gemm: {} x {} -> {}", name_of(g.a.dtype), name_of(g.b.dtype), name_of(g.c.dtype));
    require(g.bias.empty() || (g.bias.dtype == DType::bf16 && g.bias.numel() == g.n), "gemm: bias is {}, expected [{}] bf16",
            describe(g.bias), g.n);
    const PhaseTimer timer(ctx, "gemm");
    Gpu::State& s = ctx.gpu->state();
    const Gpu::State::GemmKey key{g.m, g.n, g.k, g.a.stride[0], g.b.stride[0], g.c.stride[0], g.c.dtype == DType::f32,
                                  g.transpose_a, g.transpose_b, !g.bias.empty(), alignment_of(g.a.data),
                                  alignment_of(g.b.data), alignment_of(g.c.data)};
    auto found = s.gemm_plans.find(key);
    if (found == s.gemm_plans.end()) found = s.gemm_plans.emplace(key, make_plan(s.blas, g)).first;
    Gpu::State::GemmPlan& plan = found->second;
    if (!g.bias.empty()) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias.data);
    constexpr double worth_timing = 1e10;  // FLOPs: smaller ones are over sooner than the differences can be told
    const bool tune = !ctx.deterministic && !plan.timed && g.beta == 0 &&
                      2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) > worth_timing;
    if (tune) {
        plan.fastest = fastest(s, plan, g);
        plan.timed = true;
    }
    check_blas(multiply(s, plan, plan.candidates[ctx.deterministic ? 0 : plan.fastest], g), "a product");
}

}  // namespace colonnade
