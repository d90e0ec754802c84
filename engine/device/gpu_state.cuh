#pragma once
// State of a Gpu, shared by engine/device/gpu.cu and engine/device/gemm.cu.

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <map>
#include <tuple>
#include <vector>

#include "engine/device/gpu.h"

namespace colonnade {

struct Gpu::State {
    std::string name;
    int compute_capability = 0, multiprocessors = 0;
    cudaStream_t stream = nullptr;
    bool owns_stream = false;

    /// Pinned memory for uploads and downloads.
    struct Staging {
        static constexpr size_t half = size_t{32} << 20;
        char* memory = nullptr;  ///< pinned, two halves
        cudaEvent_t read[2] = {};
        int current = 0;
        size_t used = 0;  ///< bytes of the current half
        void open();
        char* reserve(size_t bytes, cudaStream_t stream);
        ~Staging();
    } staging;

    struct Phase {
        const char* name;
        cudaEvent_t begin, end;
    };
    std::vector<Phase> phases;  ///< events are reused by the next profile
    size_t open_phases = 0;

    // GEMM: one plan per shape, chosen once by cuBLASLt's heuristics, never by timing, so that runs are reproducible.
    struct GemmPlan {
        cublasLtMatmulDesc_t operation = nullptr;
        cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
        cublasLtMatmulAlgo_t algorithm{};
        size_t workspace_bytes = 0;
    };
    /// m, n, k, lda, ldb, ldc, f32 output, transposes, bias, accumulation, alignments
    using GemmKey =
        std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool, bool, bool, bool, int, int, int>;
    static constexpr size_t workspace_limit = size_t{64} << 20;
    cublasLtHandle_t blas = nullptr;
    std::shared_ptr<void> workspace;
    std::map<GemmKey, GemmPlan> gemm_plans;
    void open_gemm();
    void close_gemm();

    ~State();
};

}  // namespace colonnade
