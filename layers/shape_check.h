#pragma once
// ShapeCheck: checks the tensors of an op before its kernel sees raw pointers: dtype, device, shape, and a contiguous
// last dimension. Rows may be strided (a slice of a packed buffer). A mismatch throws Exit::internal with the op, the
// tensor, what was found and what was expected.

#include "engine/device/context.h"

namespace colonnade {

class ShapeCheck {
  public:
    /// Every tensor of `op` must be on the context's device and have this dtype unless another is given. GPU kernels
    /// are bf16, CPU kernels f32 and f64.
    ShapeCheck(const Context& ctx, const char* op, DType dtype) : op_(op), dtype_(dtype), device_(ctx.device) {
        const bool held = (dtype == DType::bf16) == (device_ == Device::cuda) && (!ctx.gpu == (device_ == Device::cpu));
        require(held, "{} has no kernel for {} on device {}", op, dtype, device_);
    }

    void operator()(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) const {
        same(name, tensor, Tensor(nullptr, dtype_, shape, device_));
    }
    /// For a tensor of another dtype: sum_dtype for statistics and gradients of parameters, i32 for indices.
    void operator()(const char* name, const Tensor& tensor, DType dtype, std::initializer_list<int64_t> shape) const {
        same(name, tensor, Tensor(nullptr, dtype, shape, device_));
    }
    /// `tensor` must have the shape and dtype of `expected`.
    void same(const char* name, const Tensor& tensor, const Tensor& expected) const {
        bool held = tensor.rank == expected.rank && tensor.dtype == expected.dtype && tensor.device == device_;
        for (int d = 0; held && d < tensor.rank; ++d) held = tensor.size(d) == expected.size(d);
        require(held, "{}: {} is {} on {}, expected {} on {}", op_, name, tensor, tensor.device, expected, device_);
        const bool readable = tensor.data && tensor.stride[static_cast<size_t>(tensor.rank - 1)] == 1;
        require(readable || tensor.numel() == 0, "{}: {} {} has no memory or its last dim is not contiguous", op_, name,
                tensor);
    }

    const char* op() const { return op_; }

  private:
    const char* op_;
    DType dtype_;
    Device device_;
};

/// For ops that compute in double for every dtype of the model: it checks devices and shapes only.
inline ShapeCheck check_in_double(const Context& ctx, const char* op) {
    return {ctx, op, ctx.device == Device::cuda ? DType::bf16 : DType::f64};
}

}  // namespace colonnade
