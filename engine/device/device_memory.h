#pragma once
// Clears and copies on the context's device: immediate on the CPU, enqueued on a GPU. Tensors are contiguous.

#include <vector>

#include "engine/device/context.h"

namespace colonnade {

void clear(const Context& ctx, const Tensor& t);
/// Both tensors have the same number of bytes.
void copy(const Context& ctx, const Tensor& to, const Tensor& from);
/// Copies to.bytes() bytes from host memory, which may be changed or freed when this returns.
void put(const Context& ctx, const Tensor& to, const void* from);

/// `values` has one value per element of `to`.
template <typename T>
void put(const Context& ctx, const Tensor& to, const std::vector<T>& values) {
    require(to.dtype == dtype_of<T>() && to.numel() == std::ssize(values), "{} values into {}", values.size(), to);
    if (!values.empty()) put(ctx, to, values.data());
}

}  // namespace colonnade
