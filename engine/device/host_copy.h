#pragma once
// HostCopy: a tensor as the host can read and write it. One in host memory is itself; one on a GPU is copied.

#include "engine/device/context.h"

namespace colonnade {

/// Uploads f32 numbers to a tensor of bf16 on the GPU, rounded.
void upload_as_bf16(Gpu& gpu, const Tensor& to, const float* from);

class HostCopy {
  public:
    /// Holds what `original` holds (waits for the GPU). bf16 is widened to f32, which is exact.
    static HostCopy of(Gpu* gpu, const Tensor& original);
    /// Room for `original`'s new content, zeroed; store() writes it back. f32 for bf16: the values must be bf16's own.
    static HostCopy to_fill(Gpu* gpu, const Tensor& original);

    /// Memory of its own, zeroed, that stands for no other tensor.
    static HostCopy blank(DType dtype, int64_t elements);

    const Tensor& tensor() const { return tensor_; }
    /// Writes the content back to where `original` lives.
    void store() const;

  private:
    HostCopy(Gpu* gpu, const Tensor& original);
    void allocate();
    Gpu* gpu_;
    Tensor original_, tensor_;
    std::shared_ptr<void> memory_;
};

}  // namespace colonnade
