#pragma once
// Tensor: a non-owning view of up to four dimensions. The memory belongs to an Arena (engine/device/arena.h) or to the
// caller; a Tensor is cheap to copy and never frees anything.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "engine/device/error.h"
#include "engine/device/float16.h"

namespace colonnade {

enum class DType : uint8_t { u8, i16, i32, i64, f16, bf16, f32, f64 };
enum class Device : uint8_t { cpu, cuda };

size_t bytes_of(DType dtype);
const char* name_of(DType dtype);
const char* name_of(Device device);

template <typename T>
constexpr DType dtype_of() {
    if constexpr (std::is_same_v<T, uint8_t>)
        return DType::u8;
    else if constexpr (std::is_same_v<T, int16_t>)
        return DType::i16;
    else if constexpr (std::is_same_v<T, int32_t>)
        return DType::i32;
    else if constexpr (std::is_same_v<T, int64_t>)
        return DType::i64;
    else if constexpr (std::is_same_v<T, bf16>)
        return DType::bf16;
    else if constexpr (std::is_same_v<T, float>)
        return DType::f32;
    else if constexpr (std::is_same_v<T, double>)
        return DType::f64;
    else
        static_assert(sizeof(T) == 0, "no DType for this type");
}

/// Dtype of sums over tensors of `dtype` (rstd, lse, gradients of parameters) and of angles: f32 for the 16-bit types,
/// else the type itself.
constexpr DType sum_dtype(DType dtype) {
    return dtype == DType::bf16 || dtype == DType::f16 ? DType::f32 : dtype;
}

struct Tensor {
    void* data = nullptr;
    DType dtype = DType::f32;
    Device device = Device::cpu;
    int rank = 0;
    std::array<int64_t, 4> shape{};   ///< only the first `rank` entries are used
    std::array<int64_t, 4> stride{};  ///< in elements

    Tensor() = default;
    /// A contiguous (row-major) view of `data`.
    Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, Device device = Device::cpu);

    bool empty() const { return data == nullptr; }
    int64_t size(int dim) const { return shape[static_cast<size_t>(dim)]; }
    int64_t numel() const;
    size_t bytes() const { return static_cast<size_t>(numel()) * bytes_of(dtype); }
    bool contiguous() const;

    /// The same elements with another shape. The tensor must be contiguous and the element counts equal.
    Tensor view(std::initializer_list<int64_t> new_shape) const;
    /// Elements [begin, end) along `dim`, with unchanged strides.
    Tensor slice(int dim, int64_t begin, int64_t end) const;

    /// Typed pointer; throws Exit::internal if T is not the dtype.
    template <typename T>
    T* as() const {
        if (dtype != dtype_of<T>())
            fail(Exit::internal, "tensor holds {}, requested as {}", name_of(dtype), name_of(dtype_of<T>()));
        return static_cast<T*>(data);
    }
};

/// "[2, 3, 4] f32"
std::string describe(const Tensor& tensor);

/// The elements of a vector, on the CPU. They may be written only if the vector is not const.
template <typename T>
Tensor view_of(const std::vector<T>& values) {
    return Tensor(const_cast<T*>(values.data()), dtype_of<T>(), {std::ssize(values)});
}

/// Calls body.operator()<float>() or <double>(): the one switch from runtime dtypes to CPU kernel templates.
template <typename Body>
void dispatch_float(DType dtype, Body&& body) {
    switch (dtype) {
        case DType::f32:
            return body.template operator()<float>();
        case DType::f64:
            return body.template operator()<double>();
        default:
            fail(Exit::internal, "no CPU kernel for {}", name_of(dtype));
    }
}

}  // namespace colonnade

// Tensors, dtypes and devices as arguments of fail() and require().
template <>
struct fmt::formatter<colonnade::Tensor> : fmt::formatter<std::string_view> {
    auto format(const colonnade::Tensor& tensor, fmt::format_context& ctx) const {
        return fmt::formatter<std::string_view>::format(colonnade::describe(tensor), ctx);
    }
};
template <>
struct fmt::formatter<colonnade::DType> : fmt::formatter<std::string_view> {
    auto format(colonnade::DType dtype, fmt::format_context& ctx) const {
        return fmt::formatter<std::string_view>::format(colonnade::name_of(dtype), ctx);
    }
};
template <>
struct fmt::formatter<colonnade::Device> : fmt::formatter<std::string_view> {
    auto format(colonnade::Device device, fmt::format_context& ctx) const {
        return fmt::formatter<std::string_view>::format(colonnade::name_of(device), ctx);
    }
};
