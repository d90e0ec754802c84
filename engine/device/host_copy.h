#pragma once
// HostCopy: a tensor that the host can read and write. A tensor in host memory is used directly; one on a GPU, or of bf16,
// is copied.

#include "engine/device/context.h"

namespace colonnade {

/// Uploads f32 values to a bf16 tensor on the GPU, rounded to nearest even.
void upload_as_bf16(Gpu& gpu, const Tensor& to, const float* from);

class HostCopy {
  public:
    /// A copy of the content of `original`; waits for the GPU. bf16 is widened to f32, which is exact.
    static HostCopy of(Gpu* gpu, const Tensor& original);
    /// Zeroed memory for new content, which store() writes to `original`. For bf16 it is f32; store() rounds to nearest even.
    static HostCopy to_fill(Gpu* gpu, const Tensor& original);

    /// Zeroed host memory of its own, without an original.
    static HostCopy blank(DType dtype, int64_t elements);

    const Tensor& tensor() const { return tensor_; }
    /// Writes the content to the original. Does nothing if that is used directly.
    void store() const;

  private:
    HostCopy(Gpu* gpu, const Tensor& original);
    void allocate();
    Gpu* gpu_;
    Tensor original_, tensor_;
    std::shared_ptr<void> memory_;
};

}  // namespace colonnade
