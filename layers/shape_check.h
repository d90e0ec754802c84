#pragma once
// What a host wrapper checks before its kernel sees raw pointers: dtype, device, shape, and a contiguous last dim. Rows
// may be strided (a slice of a packed buffer). A mismatch is a broken promise between parts: Exit::internal with op,
// tensor, what was found and what was expected.

#include "engine/context.h"

namespace colonnade {

class ShapeCheck {
  public:
    /// Every tensor of `op` is of this dtype and lives on the context's device; Exit::config where the op has no kernel
    /// for that device.
    ShapeCheck(const Context& ctx, const char* op, DType dtype) : op_(op), dtype_(dtype), device_(ctx.device) {
        require_cpu(ctx, op);
    }

    void operator()(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) const {
        same(name, tensor, Tensor(nullptr, dtype_, shape, device_));
    }
    /// `tensor` has the shape of `expected`.
    void same(const char* name, const Tensor& tensor, const Tensor& expected) const {
        bool held = tensor.rank == expected.rank && tensor.dtype == dtype_ && tensor.device == device_;
        for (int d = 0; held && d < tensor.rank; ++d) held = tensor.size(d) == expected.size(d);
        // Not require(): its arguments, texts of tensors, would be made for every op that is in order.
        if (!held)
            fail(Exit::internal, "{}: {} is {} on {}, expected {} on {}", op_, name, describe(tensor),
                 name_of(tensor.device), describe(expected), name_of(device_));
        if (tensor.numel() != 0 && (!tensor.data || tensor.stride[static_cast<size_t>(tensor.rank - 1)] != 1))
            fail(Exit::internal, "{}: {} {} has no memory or its last dim is not contiguous", op_, name,
                 describe(tensor));
    }

    const char* op() const { return op_; }

  private:
    const char* op_;
    DType dtype_;
    Device device_;
};

}  // namespace colonnade
