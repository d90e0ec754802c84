#include "engine/device/hopper/tensor_map.h"

#include <cudaTypedefs.h>

#include "engine/device/gpu.cuh"

namespace colonnade::hopper {
namespace {

/// cuTensorMapEncodeTiled of the driver, looked up at run time because the program is not linked with the driver.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
    static const auto encode = [] {
        void* entry = nullptr;
        cudaDriverEntryPointQueryResult found{};
        check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found),
                   "cuTensorMapEncodeTiled");
        if (found != cudaDriverEntryPointSuccess || entry == nullptr)
            fail(Exit::config, "the CUDA driver has no cuTensorMapEncodeTiled: it is older than 12.0");
        return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
    }();
    return encode;
}

/// Sizes, strides and box are given from the last dim, which is contiguous, to the first.
CUtensorMap encode(const Tensor& view, const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box) {
    CUtensorMap map{};
    const cuuint32_t steps[4] = {1, 1, 1, 1};
    const CUresult status =
        encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(view.rank), view.data, sizes, strides,
                  box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        fail(Exit::internal, "no tensor map for {} with strides {}, {}, {} at {}: CUDA error {}", view, view.stride[0],
             view.stride[1], view.stride[2], view.data, static_cast<int>(status));
    return map;
}

bool fits(int64_t stride_bytes) {
    return stride_bytes > 0 && stride_bytes % 16 == 0 && stride_bytes < int64_t{1} << 40;
}

/// True for bf16 at a 16-byte boundary with a contiguous last dim and no empty dim.
bool has_elements(const Tensor& view, int rank) {
    bool held = view.rank == rank && view.dtype == DType::bf16 && reinterpret_cast<uintptr_t>(view.data) % 16 == 0 &&
                view.data != nullptr && view.stride[static_cast<size_t>(rank - 1)] == 1;
    for (int dim = 0; dim < view.rank; ++dim) held = held && view.size(dim) > 0 && view.size(dim) < int64_t{1} << 31;
    return held;
}

/// The stride of a dim of size 1 has no meaning and is replaced.
int64_t stride_bytes(const Tensor& view, int dim) {
    return 2 * (view.size(dim) == 1 ? view.size(3) : view.stride[static_cast<size_t>(dim)]);
}
int64_t row_bytes(const Tensor& matrix) {
    return 2 * (matrix.size(0) == 1 ? (matrix.size(1) + 7) / 8 * 8 : matrix.stride[0]);
}

}  // namespace

bool has_tensor_map(const Tensor& view) {
    bool held = has_elements(view, 4) && view.size(3) % 64 == 0;
    for (int dim = 0; dim < 3; ++dim) held = held && fits(stride_bytes(view, dim));
    return held;
}

CUtensorMap make_tensor_map(const Tensor& view, int box_tokens) {
    const auto size = [&](int dim) { return static_cast<cuuint64_t>(view.size(dim)); };
    const auto stride = [&](int dim) { return static_cast<cuuint64_t>(stride_bytes(view, dim)); };
    const cuuint64_t sizes[4] = {size(3), size(2), size(1), size(0)}, strides[3] = {stride(2), stride(1), stride(0)};
    const cuuint32_t box[4] = {64, 1, static_cast<cuuint32_t>(box_tokens), 1};
    return encode(view, sizes, strides, box);
}

bool has_matrix_map(const Tensor& matrix) {
    return has_elements(matrix, 2) && fits(row_bytes(matrix));
}

CUtensorMap make_matrix_map(const Tensor& matrix, int box_rows) {
    const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.size(1)), static_cast<cuuint64_t>(matrix.size(0))};
    const cuuint64_t strides[1] = {static_cast<cuuint64_t>(row_bytes(matrix))};
    const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
    return encode(matrix, sizes, strides, box);
}

}  // namespace colonnade::hopper
