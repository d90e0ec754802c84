#pragma once
// Tests of the optimizer's ops: the same body on the CPU and on a GPU, in the dtypes of either.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/context.h"
#include "engine/device/float16.h"
#include "engine/device/philox.h"
#include "tests/support/test_gpu.h"

namespace colonnade {

inline double normal(uint64_t stream, size_t i) {
    return Philox{99, stream}.normal(i);
}
/// Gradients of very different sizes: 1e-5 to 10.
inline double gradient_at(int64_t t, size_t i) {
    return std::pow(10.0, static_cast<double>(i % 7) - 5) * normal(static_cast<uint64_t>(t), i);
}

/// The device of an optimizer, and the dtypes that it computes in.
struct Place {
    Device device;
    DType dtype, moments;
};

/// Memory on the device of the test, and copies to and from it.
class OnDevice : public testing::TestWithParam<Place> {
  protected:
    void SetUp() override {
        if (GetParam().device == Device::cpu) return;
        gpu_ = test_gpu();
        if (!gpu_) GTEST_SKIP() << "no CUDA device";
        ctx_ = {.device = Device::cuda, .gpu = gpu_};
    }
    Tensor make(DType dtype, int64_t n) {
        const size_t bytes = static_cast<size_t>(n) * bytes_of(dtype);
        memory_.push_back(gpu_ ? allocate_on_gpu(bytes) : std::shared_ptr<void>(std::calloc(1, bytes + 1), std::free));
        return Tensor(memory_.back().get(), dtype, {n}, ctx_.device);
    }
    template <typename T>
    void fill(const Tensor& to, const std::vector<T>& values) {
        if (gpu_)
            gpu_->upload(to, values.data());
        else
            std::copy_n(reinterpret_cast<const char*>(values.data()), to.bytes(), static_cast<char*>(to.data));
    }
    template <typename T>
    Tensor put(const std::vector<T>& values) {
        const Tensor t = make(dtype_of<T>(), std::ssize(values));
        fill(t, values);
        return t;
    }
    /// The bytes, so that comparisons are bitwise.
    std::vector<char> bytes(const Tensor& t) {
        std::vector<char> b(t.bytes());
        if (gpu_)
            gpu_->download(b.data(), t);
        else
            std::memcpy(b.data(), t.data, b.size());
        return b;
    }
    template <typename T>
    std::vector<T> get(const Tensor& t) {
        const std::vector<char> from = bytes(t);
        std::vector<T> values(from.size() / sizeof(T));
        std::memcpy(values.data(), from.data(), from.size());
        return values;
    }
    /// Reads as double.
    std::vector<double> read(const Tensor& t) {
        if (t.dtype == DType::f64) return get<double>(t);
        const auto narrow = get<float>(t);
        return {narrow.begin(), narrow.end()};
    }
    /// Rounds to the dtype.
    void write(const Tensor& to, const std::vector<double>& values) {
        if (to.dtype == DType::f64)
            fill(to, values);
        else
            fill(to, std::vector<float>(values.begin(), values.end()));
    }

    /// Weights of the optimizer, on a GPU in two halves.
    struct Weights {
        Tensor values, low;
    };
    Weights make_weights(int64_t n) {
        if (gpu_) return {make(DType::bf16, n), make(DType::i16, n)};
        return {make(GetParam().dtype, n), {}};
    }
    void write(const Weights& to, const std::vector<double>& values) {
        if (!gpu_) return write(to.values, values);
        std::vector<uint16_t> top;
        std::vector<int16_t> low;
        for (const double value : values) {
            const SplitFloat halves = split_float(std::bit_cast<uint32_t>(static_cast<float>(value)));
            top.push_back(halves.top);
            low.push_back(halves.low);
        }
        fill(to.values, top);
        fill(to.low, low);
    }
    /// In one piece; on a GPU they are f32.
    template <typename T>
    std::vector<T> get(const Weights& weights) {
        if (!gpu_) return get<T>(weights.values);
        const auto top = get<uint16_t>(weights.values);
        const auto low = get<int16_t>(weights.low);
        std::vector<T> values;
        for (size_t i = 0; i < top.size(); ++i)
            values.push_back(static_cast<T>(std::bit_cast<float>(joined_float(top[i], low[i]))));
        return values;
    }
    std::vector<double> read(const Weights& weights) { return gpu_ ? get<double>(weights) : read(weights.values); }

    Context ctx_;
    Gpu* gpu_ = nullptr;
    std::vector<std::shared_ptr<void>> memory_;
};

inline std::string name_of_place(const testing::TestParamInfo<Place>& info) {
    return std::string(name_of(info.param.device)) + "_" + name_of(info.param.dtype) + "_" +
           name_of(info.param.moments);
}

}  // namespace colonnade
