#pragma once
// Plain copies where an op runs: on the CPU at once, on a GPU enqueued. Contiguous tensors of the context's device.

#include <vector>

#include "engine/device/context.h"

namespace colonnade {

void clear(const Context& ctx, const Tensor& t);
/// As many bytes both.
void copy(const Context& ctx, const Tensor& to, const Tensor& from);
/// `from`: to.bytes() in host memory, which may be changed or freed afterwards.
void put(const Context& ctx, const Tensor& to, const void* from);

/// As many values as `to` has elements.
template <typename T>
void put(const Context& ctx, const Tensor& to, const std::vector<T>& values) {
    require(to.dtype == dtype_of<T>() && to.numel() == std::ssize(values), "{} values into {}", values.size(),
            describe(to));
    if (!values.empty()) put(ctx, to, values.data());
}

}  // namespace colonnade
