#pragma once
// State of a Gpu, shared by gpu.cu, gpu_with_stream.cu and gemm.cu.

#include <cuda_runtime.h>

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
        void open();      ///< if it is not open
        char* reserve(size_t bytes, cudaStream_t stream);
        ~Staging();
    } staging;

    struct Phase {
        const char* name;
        cudaEvent_t begin, end;
    };
    std::vector<Phase> phases;  ///< events are reused by the next profile
    size_t open_phases = 0;

    /// cuBLASLt and its plans. Only gemm.cu knows the type, so that a program without products is not linked with
    /// cuBLASLt.
    struct Products;
    std::shared_ptr<Products> products;
    void open_products();

    ~State();
};

}  // namespace colonnade
