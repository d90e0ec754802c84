// Bytes of scratch of the backward kernels. Plain host code, so that a build without CUDA can plan the memory of a GPU.

#include "attention/cuda_kernels.h"
#include "attention/hopper/hopper.h"
#include "attention/hopper/scratch_layout.h"

namespace colonnade::cuda {

int64_t portable_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim) {
    return batch * heads * padded_rows(rows) * (2 + head_dim) * static_cast<int64_t>(sizeof(float));
}

int64_t hopper_scratch_bytes(int64_t batch, int64_t rows, int64_t heads, int64_t head_dim) {
    if (rows == 0 || !hopper::has_kernel(head_dim)) return 0;
    return hopper::ScratchLayout(batch, rows, heads, head_dim).floats() * static_cast<int64_t>(sizeof(float));
}

}  // namespace colonnade::cuda
