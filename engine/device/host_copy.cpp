#include "engine/device/host_copy.h"

#include <algorithm>

#include "engine/device/arena.h"

namespace colonnade {

static void narrow(void* to, const float* from, int64_t count) {
    auto* const out = static_cast<uint16_t*>(to);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; ++i) out[i] = bf16_from_float(from[i]);
}

void upload_as_bf16(Gpu& gpu, const Tensor& to, const float* from) {
    gpu.upload(to, [&](void* out, int64_t first, int64_t count) { narrow(out, from + first, count); });
}

HostCopy::HostCopy(Gpu* gpu, const Tensor& original) : gpu_(gpu), original_(original), tensor_(original) {
    const DType dtype = sum_dtype(original.dtype);
    if (original.empty() || (original.device == Device::cpu && original.dtype == dtype)) return;
    require((gpu || original.device == Device::cpu) && original.contiguous(), "a host copy of {} on {}", original,
            original.device);
    tensor_.dtype = dtype;
    tensor_.device = Device::cpu;
    allocate();
}

void HostCopy::allocate() {
    memory_ = std::make_shared<Arena>(Device::cpu, tensor_.bytes() + Arena::alignment);
    tensor_.data = static_cast<Arena*>(memory_.get())->tensor("copy", tensor_.dtype, {tensor_.numel()}).data;
}

HostCopy HostCopy::of(Gpu* gpu, const Tensor& original) {
    HostCopy copy(gpu, original);
    if (!copy.memory_) return copy;
    if (original.dtype == copy.tensor_.dtype) {
        gpu->download(copy.tensor_.data, original);
        return copy;
    }
    std::vector<uint16_t> downloaded;
    const auto* bits = static_cast<const uint16_t*>(original.data);
    if (original.device == Device::cuda) {
        downloaded.resize(static_cast<size_t>(original.numel()));
        gpu->download(downloaded.data(), original);
        bits = downloaded.data();
    }
    std::transform(bits, bits + original.numel(), copy.tensor_.as<float>(), float_from_bf16);
    return copy;
}

HostCopy HostCopy::blank(DType dtype, int64_t elements) {
    HostCopy copy(nullptr, {});
    copy.tensor_ = Tensor(nullptr, dtype, {elements});
    copy.allocate();
    copy.original_ = copy.tensor_;
    return copy;
}

HostCopy HostCopy::to_fill(Gpu* gpu, const Tensor& original) {
    return HostCopy(gpu, original);
}

void HostCopy::store() const {
    if (!memory_) return;
    if (original_.device == Device::cpu) return narrow(original_.data, tensor_.as<float>(), tensor_.numel());
    if (original_.dtype == tensor_.dtype) return gpu_->upload(original_, tensor_.data);
    upload_as_bf16(*gpu_, original_, tensor_.as<float>());
}

}  // namespace colonnade
