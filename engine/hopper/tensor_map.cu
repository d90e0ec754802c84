#include "engine/hopper/tensor_map.h"

#include <cudaTypedefs.h>

#include "engine/gpu.cuh"

namespace colonnade::hopper {
namespace {

/// From the driver, which the program is not linked with.
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

/// Of dims of size 1 the stride means nothing.
int64_t stride_bytes(const Tensor& view, int dim) {
    return 2 * (view.size(dim) == 1 ? view.size(3) : view.stride[static_cast<size_t>(dim)]);
}

}  // namespace

bool has_tensor_map(const Tensor& view) {
    bool held = view.rank == 4 && view.dtype == DType::bf16 && reinterpret_cast<uintptr_t>(view.data) % 16 == 0 &&
                view.data != nullptr && view.size(3) % 64 == 0 && view.stride[3] == 1;
    for (int dim = 0; dim < 4; ++dim) held = held && view.size(dim) > 0 && view.size(dim) < int64_t{1} << 31;
    for (int dim = 0; dim < 3; ++dim) {
        const int64_t bytes = stride_bytes(view, dim);
        held = held && bytes > 0 && bytes % 16 == 0 && bytes < int64_t{1} << 40;
    }
    return held;
}

CUtensorMap make_tensor_map(const Tensor& view, int box_tokens) {
    CUtensorMap map{};
    const auto size = [&](int dim) { return static_cast<cuuint64_t>(view.size(dim)); };
    const auto stride = [&](int dim) { return static_cast<cuuint64_t>(stride_bytes(view, dim)); };
    const cuuint64_t sizes[4] = {size(3), size(2), size(1), size(0)}, strides[3] = {stride(2), stride(1), stride(0)};
    const cuuint32_t box[4] = {64, 1, static_cast<cuuint32_t>(box_tokens), 1}, steps[4] = {1, 1, 1, 1};
    const CUresult status = encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, view.data, sizes, strides, box, steps,
                                      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        fail(Exit::internal, "no tensor map for {} with strides {}, {}, {} at {}: CUDA error {}", describe(view),
             view.stride[0], view.stride[1], view.stride[2], view.data, static_cast<int>(status));
    return map;
}

}  // namespace colonnade::hopper
