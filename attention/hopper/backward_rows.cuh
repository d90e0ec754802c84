#pragma once
// The launches of Hopper's backward before and after its main kernel, by rows (backward_rows.cu). They run on any GPU.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "engine/device/tensor.h"

namespace colonnade::hopper {

/// A [batch, rows, heads, head_dim] tensor: strides in elements; the last stride is 1.
struct RowView {
    __nv_bfloat16* data;
    int64_t batch, row, head;
};
RowView row_view(const Tensor& tensor);

/// `statistics` to `next` are those of BackwardScratch.
struct BackwardRows {
    RowView out, dout, dq;
    const float* lse;
    float *statistics, *sums;
    uint32_t* tickets;
    unsigned* next;
    int cleared;  ///< number of counters and tickets at `next`
    int rows, heads, row_blocks;
    int64_t blocks;  ///< batch * heads * row_blocks
    float scale;
};

/// Writes the statistics of all rows and clears item counters and tickets of pieces; for head_dim 64 and 128 also sums of dQ and tickets.
void prepare_rows(cudaStream_t stream, const BackwardRows& args, int head_dim);
/// dQ = scale times its sums, rounded to bf16; head_dim 64 or 128.
void finish_rows(cudaStream_t stream, const BackwardRows& args, int head_dim);

}  // namespace colonnade::hopper
