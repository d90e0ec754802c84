#pragma once
// What Hopper's backward does by rows, before and after its main kernel (backward_rows.cu). Any GPU could run it.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "engine/device/tensor.h"

namespace colonnade::hopper {

/// A [batch, rows, heads, head_dim] tensor: strides in elements, the last one is 1.
struct RowView {
    __nv_bfloat16* data;
    int64_t batch, row, head;
};
RowView row_view(const Tensor& tensor);

/// Fields of scratch as in BackwardProblem.
struct BackwardRows {
    RowView out, dout, dq;
    const float* lse;
    float *statistics, *sums;
    uint32_t* tickets;
    unsigned* next;
    int counters;  ///< of `next`
    int rows, heads, row_blocks;
    int64_t blocks;  ///< batch * heads * row_blocks
    float scale;
};

/// Statistics of all rows; item counters become 0, and so do sums of dQ and tickets for head_dim 64 and 128.
void prepare_rows(cudaStream_t stream, const BackwardRows& args, int head_dim);
/// Sums of dQ, times scale, to bf16: head_dim 64 or 128.
void finish_rows(cudaStream_t stream, const BackwardRows& args, int head_dim);

}  // namespace colonnade::hopper
