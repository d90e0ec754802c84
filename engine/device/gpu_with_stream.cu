// The constructor of a Gpu with a stream of its own stands apart from gpu.cu: it opens cuBLASLt, which a program that
// borrows its stream and has no products is not linked with.

#include "engine/device/gpu.cuh"
#include "engine/device/gpu_state.cuh"

namespace colonnade {

Gpu::Gpu(int index) : Gpu(index, nullptr) {
    State& s = *state_;
    s.staging.open();
    s.open_products();
    check_cuda(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    s.owns_stream = true;
}

}  // namespace colonnade
