#include "attention/tensor_values.h"

#include <cstring>

namespace colonnade {
namespace {

void store(void* to, DType dtype, int64_t at, double value) {
    if (dtype == DType::bf16)
        static_cast<uint16_t*>(to)[at] = bf16_from_float(static_cast<float>(value));
    else if (dtype == DType::f32)
        static_cast<float*>(to)[at] = static_cast<float>(value);
    else
        static_cast<double*>(to)[at] = value;
}

double load(const void* from, DType dtype, int64_t at) {
    if (dtype == DType::bf16) return float_from_bf16(static_cast<const uint16_t*>(from)[at]);
    if (dtype == DType::f32) return static_cast<const float*>(from)[at];
    return static_cast<const double*>(from)[at];
}

void check(const Tensor& t) {
    require(t.contiguous() && (t.dtype == DType::bf16 || t.dtype == DType::f32 || t.dtype == DType::f64),
            "values of {}: expected a contiguous tensor of bf16, f32 or f64", describe(t));
}

}  // namespace

void write_values(const Context& ctx, const Tensor& to, const std::function<double(int64_t)>& value) {
    check(to);
    const auto fill = [&](void* out, int64_t first, int64_t count) {
        for (int64_t i = 0; i < count; ++i) store(out, to.dtype, i, value(first + i));
    };
    if (to.device == Device::cuda)
        ctx.gpu->upload(to, fill);
    else
        fill(to.data, 0, to.numel());
}

std::vector<double> read_values(const Context& ctx, const Tensor& from) {
    check(from);
    std::vector<double> bytes;  // raw memory for any dtype, aligned for the largest
    const void* data = from.data;
    if (from.device == Device::cuda) {
        bytes.resize((from.bytes() + sizeof(double) - 1) / sizeof(double));
        ctx.gpu->download(bytes.data(), from);
        data = bytes.data();
    }
    std::vector<double> values(static_cast<size_t>(from.numel()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = load(data, from.dtype, static_cast<int64_t>(i));
    return values;
}

}  // namespace colonnade
