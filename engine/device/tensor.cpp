#include "engine/device/tensor.h"

namespace colonnade {

size_t bytes_of(DType dtype) {
    switch (dtype) {
        case DType::u8:
            return 1;
        case DType::i16:
        case DType::f16:
        case DType::bf16:
            return 2;
        case DType::i32:
        case DType::f32:
            return 4;
        case DType::i64:
        case DType::f64:
            return 8;
    }
    return 0;
}

const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::u8:
            return "u8";
        case DType::i16:
            return "i16";
        case DType::i32:
            return "i32";
        case DType::i64:
            return "i64";
        case DType::f16:
            return "f16";
        case DType::bf16:
            return "bf16";
        case DType::f32:
            return "f32";
        case DType::f64:
            return "f64";
    }
    return "?";
}

const char* name_of(Device device) {
    return device == Device::cpu ? "cpu" : "cuda";
}

static void set_shape(Tensor& t, std::initializer_list<int64_t> shape) {
    require(shape.size() <= 4, "a tensor has at most 4 dimensions, not {}", shape.size());
    t.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), t.shape.begin());
    int64_t step = 1;
    for (int d = t.rank - 1; d >= 0; --d) {
        t.stride[static_cast<size_t>(d)] = step;
        step *= t.size(d);
    }
}

Tensor::Tensor(void* data_, DType dtype_, std::initializer_list<int64_t> shape_, Device device_)
    : data(data_), dtype(dtype_), device(device_) {
    set_shape(*this, shape_);
}

int64_t Tensor::numel() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= size(d);
    return n;
}

bool Tensor::contiguous() const {
    int64_t step = 1;
    for (int d = rank - 1; d >= 0; --d) {
        if (size(d) != 1 && stride[static_cast<size_t>(d)] != step) return false;
        step *= size(d);
    }
    return true;
}

Tensor Tensor::view(std::initializer_list<int64_t> new_shape) const {
    Tensor t = *this;
    set_shape(t, new_shape);
    if (!contiguous() || t.numel() != numel())
        fail(Exit::internal, "cannot view {} as {}", describe(*this), describe(t));
    return t;
}

Tensor Tensor::slice(int dim, int64_t begin, int64_t end) const {
    if (dim < 0 || dim >= rank || begin < 0 || begin > end || end > size(dim))
        fail(Exit::internal, "slice {}:{} of dim {} of {}", begin, end, dim, describe(*this));
    Tensor t = *this;
    const auto d = static_cast<size_t>(dim);
    // A planned tensor has no memory yet, and neither have its slices.
    if (data) t.data = static_cast<char*>(data) + static_cast<size_t>(begin * stride[d]) * bytes_of(dtype);
    t.shape[d] = end - begin;
    return t;
}

std::string describe(const Tensor& t) {
    std::string s = "[";
    for (int d = 0; d < t.rank; ++d) s += fmt::format("{}{}", d ? ", " : "", t.size(d));
    return s + "] " + name_of(t.dtype);
}

}  // namespace colonnade
