#pragma once
// For tests whose body runs on every device. Each tensor is made twice with the same values: in the device's dtype
// (bf16 on a GPU, f32 on the CPU) and in double in host memory. run() calls the op on both, expect_close() compares.
// The GPU tests are skipped if the machine has no GPU.
//
//     struct ScaleOnDevice : DeviceCase {};
//     TEST_P(ScaleOnDevice, EqualsDouble) {
//         const Twin in = values({5, 7}, 1), out = output({5, 7});
//         run([&](const Context& ctx, auto of) { scale(ctx, {.out = of(out), .in = of(in)}); });
//         expect_close("out", out, {.relative = rounding()});
//     }
//     INSTANTIATE_TEST_SUITE_P(Devices, ScaleOnDevice, every_device(), name_of_device);

#include <cstring>
#include <span>

#include "engine/device/arena.h"
#include "engine/device/context.h"
#include "engine/device/device.h"
#include "tests/support/gradient_check.h"

namespace colonnade {

inline auto every_device() {
    return testing::Values(Device::cpu, Device::cuda);
}
inline std::string name_of_device(const testing::TestParamInfo<Device>& info) {
    return name_of(info.param);
}

class DeviceCase : public testing::TestWithParam<Device> {
  protected:
    struct Twin {
        Tensor device{}, exact{};
        Twin slice(int dim, int64_t begin, int64_t end) const {
            return {device.slice(dim, begin, end), exact.slice(dim, begin, end)};
        }
        Twin view(std::initializer_list<int64_t> shape) const { return {device.view(shape), exact.view(shape)}; }
    };
    /// Bound of |found - expected|: relative * |expected| + absolute.
    struct Bound {
        double relative = 0, absolute = 0;
    };
    static constexpr double f32_rounding = 0x1p-24;  ///< relative error of one rounding

    void SetUp() override {
        if (on_gpu() && cuda_devices().empty()) GTEST_SKIP() << "no CUDA device";
        if (on_gpu() && !gpu_) gpu_ = std::make_unique<Gpu>();
        arena_ = Arena(GetParam(), size_t{128} << 20);
        exact_ = Arena(Device::cpu, size_t{256} << 20);
    }
    static void TearDownTestSuite() { gpu_.reset(); }

    bool on_gpu() const { return GetParam() == Device::cuda; }
    DType dtype() const { return on_gpu() ? DType::bf16 : DType::f32; }
    /// Relative error of one rounding to dtype().
    double rounding() const { return on_gpu() ? 0x1p-8 : f32_rounding; }
    Context context() const {
        return {.device = GetParam(), .profile = nullptr, .gpu = on_gpu() ? gpu_.get() : nullptr};
    }

    /// Releases the memory of all tensors made so far.
    void release() {
        arena_.release(0);
        exact_.release(0);
    }

    /// `values`, rounded to `dtype`.
    Twin twin(DType dtype, std::initializer_list<int64_t> shape, const std::vector<double>& values) {
        const bool floating = dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64;
        const Twin t{arena_.tensor("", dtype, shape), exact_.tensor("", floating ? DType::f64 : dtype, shape)};
        std::vector<char> bytes(t.device.bytes());
        const Tensor stored(bytes.data(), dtype, shape);
        require(stored.numel() == std::ssize(values), "{} of {} values", stored, values.size());
        for (size_t i = 0; i < values.size(); ++i) {
            put(stored, i, values[i]);
            put(t.exact, i, get(stored, i));
        }
        if (on_gpu())
            gpu_->upload(t.device, stored.data);
        else if (!bytes.empty())
            std::memcpy(t.device.data, bytes.data(), bytes.size());
        return t;
    }
    /// Standard normal numbers.
    Twin values(std::initializer_list<int64_t> shape, uint64_t stream) {
        return twin(dtype(), shape, random_values<double>(count(shape), stream));
    }
    /// Normal numbers in steps of 1/16 and below 4: the sum of two of them is exact, also in bf16.
    Twin sixteenths(std::initializer_list<int64_t> shape, uint64_t stream) {
        auto numbers = random_values<double>(count(shape), stream);
        for (double& v : numbers) v = std::clamp(std::nearbyint(16 * v), -63.0, 63.0) / 16;
        return twin(dtype(), shape, numbers);
    }
    /// Normal numbers in the dtype of sums: an existing gradient.
    Twin sums(std::initializer_list<int64_t> shape, uint64_t stream) {
        return twin(sum_dtype(dtype()), shape, random_values<double>(count(shape), stream));
    }
    /// NaN everywhere: elements that an op does not write stay NaN.
    Twin output(std::initializer_list<int64_t> shape) { return poisoned(dtype(), shape); }
    Twin sum_output(std::initializer_list<int64_t> shape) { return poisoned(sum_dtype(dtype()), shape); }
    Twin poisoned(DType dtype, std::initializer_list<int64_t> shape) {
        return twin(dtype, shape, std::vector<double>(static_cast<size_t>(count(shape)), std::nan("")));
    }
    Twin indices(const std::vector<int32_t>& values) {
        return twin(DType::i32, {std::ssize(values)}, std::vector<double>(values.begin(), values.end()));
    }
    /// Scratch memory full of NaN; empty on the CPU.
    Twin scratch(int64_t bytes) {
        if (!on_gpu()) return {};
        const Twin t{arena_.tensor("", DType::u8, {bytes}), {}};
        gpu_->upload(t.device, std::vector<uint8_t>(static_cast<size_t>(bytes), 255).data());
        return t;
    }

    /// Calls body(context, of) for both: `of` selects the tensor of a twin that belongs to the context.
    template <typename Body>
    void run(Body&& body) {
        body(context(), [](const Twin& t) { return t.device; });
        body(Context{}, [](const Twin& t) { return t.exact; });
    }

    /// The values of a contiguous tensor, copied to the host.
    std::vector<double> read(const Tensor& t) const {
        require(t.contiguous(), "read of a strided {}", t);
        std::vector<char> bytes(t.bytes());
        if (t.device == Device::cuda)
            gpu_->download(bytes.data(), t);
        else if (!bytes.empty())
            std::memcpy(bytes.data(), t.data, bytes.size());
        Tensor host = t;
        host.data = bytes.data();
        std::vector<double> values(static_cast<size_t>(t.numel()));
        for (size_t i = 0; i < values.size(); ++i) values[i] = get(host, i);
        return values;
    }

    /// NaN equals NaN. A bound of zero requires equal numbers.
    void expect_close(const char* name, const Twin& t, Bound bound) const {
        const auto found = read(t.device), expected = read(t.exact);
        size_t wrong = 0, first = 0;
        double worst = 0;  // error over its bound
        for (size_t i = 0; i < found.size(); ++i) {
            if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
            const double error = std::abs(found[i] - expected[i]);
            const double limit = bound.relative * std::abs(expected[i]) + bound.absolute;
            if (!(error <= limit) && wrong++ == 0) first = i;
            if (limit > 0) worst = std::max(worst, error / limit);
        }
        if (wrong)
            ADD_FAILURE() << name << " " << describe(t.device) << ": " << wrong << " of " << found.size()
                          << " elements are wrong, by up to " << worst << " of the bound; the first is element "
                          << first << ": " << found[first] << ", expected " << expected[first];
    }

  private:
    static int64_t count(std::initializer_list<int64_t> shape) { return Tensor(nullptr, DType::u8, shape).numel(); }
    static double get(const Tensor& t, size_t i) {
        switch (t.dtype) {
            case DType::bf16:
                return static_cast<double>(float_from_bf16(t.as<bf16>()[i].bits));
            case DType::f32:
                return static_cast<double>(t.as<float>()[i]);
            case DType::f64:
                return t.as<double>()[i];
            case DType::i32:
                return t.as<int32_t>()[i];
            case DType::i64:
                return static_cast<double>(t.as<int64_t>()[i]);
            default:
                return t.as<uint8_t>()[i];
        }
    }
    static void put(const Tensor& t, size_t i, double value) {
        switch (t.dtype) {
            case DType::bf16:
                t.as<bf16>()[i].bits = bf16_from_float(static_cast<float>(value));
                return;
            case DType::f32:
                t.as<float>()[i] = static_cast<float>(value);
                return;
            case DType::f64:
                t.as<double>()[i] = value;
                return;
            case DType::i32:
                t.as<int32_t>()[i] = static_cast<int32_t>(value);
                return;
            case DType::i64:
                t.as<int64_t>()[i] = static_cast<int64_t>(value);
                return;
            default:
                t.as<uint8_t>()[i] = static_cast<uint8_t>(value);
        }
    }

    static inline std::unique_ptr<Gpu> gpu_;
    Arena arena_{Device::cpu}, exact_{Device::cpu};
};

}  // namespace colonnade
