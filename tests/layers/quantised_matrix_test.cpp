// Golden values are those of bitsandbytes and PyTorch (tests/golden/make_quantised_golden.py).

#include "layers/quantised_matrix.h"

#include "engine/io/json.h"
#include "engine/io/sha256.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

std::string hex(const void* data, size_t bytes) {
    const auto* const from = static_cast<const unsigned char*>(data);
    std::string text;
    for (size_t i = 0; i < bytes; ++i) text += fmt::format("{:02x}", from[i]);
    return text;
}
std::string hex(const Tensor& t) {
    return hex(t.data, t.bytes());
}
std::string hash(const void* data, size_t bytes) {
    return sha256({static_cast<const char*>(data), bytes});
}
std::string hash(const Tensor& t) {
    return hash(t.data, t.bytes());
}

/// The numbers of the golden script.
std::vector<double> golden_values(int64_t count) {
    std::vector<double> values;
    uint64_t state = 1;
    for (int64_t i = 0; i < count; ++i) {
        state = (state * 1103515245 + 12345) % (uint64_t{1} << 31);
        const double x = static_cast<double>(state) / (1 << 30) - 1;
        values.push_back(x * x * x * 0.05);
    }
    return values;
}

std::vector<uint16_t> as_bf16(const std::vector<double>& values) {
    std::vector<uint16_t> bits;
    for (const double v : values) bits.push_back(bf16_from_float(static_cast<float>(v)));
    return bits;
}

struct OnHost {
    Arena arena{Device::cpu, size_t{16} << 20};
    QuantisedMatrix matrix;
    OnHost(WeightCode code, int64_t rows, int64_t columns)
        : matrix(QuantisedMatrix::lay_out(arena, "", code, rows, columns)) {}

    template <typename T>
    std::vector<double> widened() {
        std::vector<T> out(static_cast<size_t>(matrix.numel()));
        dequantise({}, {.out = tensor_of(out, {matrix.rows, matrix.columns}), .in = matrix});
        return {out.begin(), out.end()};
    }
};

TEST(QuantisedMatrix, EqualsBitsandbytesAndPyTorch) {
    const Json golden = read_json_file(golden_file("quantised_golden.json"));
    const auto values = golden_values(130 * 192);
    const auto bits = as_bf16(values);
    ASSERT_EQ(hash(bits.data(), 2 * bits.size()), golden["values"].get<std::string>());
    for (const auto code : {WeightCode::nf4, WeightCode::fp8}) {
        const Json& wanted = golden[code == WeightCode::nf4 ? "nf4" : "fp8"];
        OnHost q(code, 130, 192);
        const QuantisedMatrix& m = q.matrix;
        quantise({.out = m, .in = view_of(values)});
        EXPECT_EQ(hash(m.codes), wanted["codes"].get<std::string>());
        EXPECT_EQ(code == WeightCode::nf4 ? hash(m.scales) : hex(m.scales), wanted["scales"].get<std::string>());
        if (code == WeightCode::nf4) {
            EXPECT_EQ(hex(m.map), wanted["map"].get<std::string>());
            EXPECT_EQ(hex(m.nested), wanted["nested"].get<std::string>() + wanted["mean"].get<std::string>());
        }
        const auto weights = as_bf16(q.widened<float>());
        EXPECT_EQ(hash(weights.data(), 2 * weights.size()), wanted["weights"].get<std::string>());
    }
}

TEST(QuantisedMatrix, EveryNumberOfE4m3) {
    const Json golden = read_json_file(golden_file("quantised_golden.json"));
    std::vector<float> every;
    for (int k = 0; k < 256; ++k) {
        const auto code = static_cast<uint8_t>(k);
        every.push_back(float_from_e4m3(code));
        ASSERT_EQ(std::isnan(every.back()), k % 128 == 127);
        if (k % 128 == 127)
            every.back() = 0;  // the script writes 0 for NaN, whose payloads differ
        else
            EXPECT_EQ(e4m3_from_float(every.back()), code) << every.back();
    }
    EXPECT_EQ(hex(every.data(), 4 * every.size()), golden["e4m3"].get<std::string>());
    // Between neighbours: to the nearest, ties to even codes.
    for (int k = 0; k < 0x7e; ++k) {
        const float low = float_from_e4m3(static_cast<uint8_t>(k)), high = float_from_e4m3(static_cast<uint8_t>(k + 1));
        const float middle = (low + high) / 2;
        EXPECT_EQ(e4m3_from_float(middle), k % 2 ? k + 1 : k) << middle;
        EXPECT_EQ(e4m3_from_float(std::nextafter(middle, 0.0f)), k);
        EXPECT_EQ(e4m3_from_float(std::nextafter(middle, 1000.0f)), k + 1);
    }
    EXPECT_EQ(e4m3_from_float(1e30f), 0x7e);
    EXPECT_EQ(e4m3_from_float(-INFINITY), 0xfe);
    EXPECT_TRUE(std::isnan(float_from_e4m3(e4m3_from_float(NAN))));
}

TEST(QuantisedMatrix, EveryBf16GoesToTheNearestE4m3) {
    const auto size_of = [](int code) { return float_from_e4m3(static_cast<uint8_t>(code)); };
    for (uint32_t bits = 0; bits <= 0x7f80; ++bits) {
        const float value = float_from_bf16(static_cast<uint16_t>(bits));
        int nearest = 0;
        while (nearest < 0x7e && size_of(nearest + 1) <= value) ++nearest;
        if (nearest < 0x7e) {
            const float middle = (size_of(nearest) + size_of(nearest + 1)) / 2;
            nearest += value > middle || (value == middle && nearest % 2 == 1);
        }
        ASSERT_EQ(e4m3_from_float(value), nearest) << value;
        ASSERT_EQ(e4m3_from_float(-value), nearest | 0x80) << value;
    }
}

// No weight is further off than half the distance between the numbers around it, plus the rounding of scales.
TEST(QuantisedMatrix, ErrorsAreThoseOfTheCodes) {
    const auto values = random_values<double>(200 * 1100, 3);
    double largest_error = 0, squares = 0;
    OnHost nf4(WeightCode::nf4, 200, 1100), fp8(WeightCode::fp8, 200, 1100);
    quantise({.out = nf4.matrix, .in = view_of(values)});
    quantise({.out = fp8.matrix, .in = view_of(values)});
    const auto four = nf4.widened<double>(), eight = fp8.widened<double>();
    for (size_t i = 0; i < values.size(); ++i) {
        squares += (four[i] - values[i]) * (four[i] - values[i]) / static_cast<double>(values.size());
        largest_error = std::max(largest_error, std::abs(eight[i] - values[i]) / (std::abs(values[i]) + 1e-2));
    }
    EXPECT_LT(std::sqrt(squares), 0.1);  // of numbers of size 1: 0.091 for blocks of 64
    EXPECT_GT(std::sqrt(squares), 0.08);
    EXPECT_LT(largest_error, 0x1p-4 + 0x1p-8);
}

TEST(QuantisedMatrix, BlocksOfZerosStayZero) {
    const std::vector<double> zeros(3 * 70);
    for (const auto code : {WeightCode::nf4, WeightCode::fp8}) {
        OnHost q(code, 3, 70);
        quantise({.out = q.matrix, .in = view_of(zeros)});
        for (const double w : q.widened<float>()) EXPECT_EQ(w, 0);
    }
}

TEST(QuantisedMatrix, RefusesWhatIsNotFinite) {
    std::vector<double> values(3 * 70, 1.0);
    values[5] = NAN, values[77] = 1e39;  // too large for bf16
    for (const auto code : {WeightCode::nf4, WeightCode::fp8}) {
        OnHost q(code, 3, 70);
        expect_error(Exit::data, "layer.weight: 2 of 210 weights are not finite numbers; fewer bits cannot hold them",
                     [&] { quantise({.out = q.matrix, .in = view_of(values), .name = "layer.weight"}); });
    }
}

TEST(QuantisedMatrix, SameBitsWithAnyThreads) {
    const auto values = random_values<double>(130 * 1100, 4);
    for (const auto code : {WeightCode::nf4, WeightCode::fp8})
        expect_same_with_any_threads([&] {
            OnHost q(code, 130, 1100);  // several groups of blocks
            quantise({.out = q.matrix, .in = view_of(values)});
            return q.widened<float>();
        });
}

TEST(QuantisedMatrix, TakesTheBytesThatItsHeaderSays) {
    const OnHost nf4(WeightCode::nf4, 1024, 1024), fp8(WeightCode::fp8, 1024, 1024);
    EXPECT_NEAR(8.0 * static_cast<double>(nf4.matrix.bytes()) / (1 << 20), 4.13, 0.01);
    EXPECT_NEAR(8.0 * static_cast<double>(fp8.matrix.bytes()) / (1 << 20), 8.002, 0.001);
}

struct QuantisedOnDevice : DeviceCase {
    /// The matrix on the device, from one in host memory.
    QuantisedMatrix on_device(const QuantisedMatrix& host) {
        QuantisedMatrix m = host;
        const auto copy = [&](Tensor& t) {
            if (!t.empty()) t = twin(t.dtype, {t.numel()}, read(t)).device;
        };
        copy(m.codes), copy(m.nested), copy(m.map);
        const auto down = host.scales.rank == 2 ? host.scales.size(0) : 0;
        copy(m.scales);
        if (down) m.scales = m.scales.view({down, host.scales.size(1)});
        return m;
    }
};

TEST_P(QuantisedOnDevice, HasTheBitsOfTheCpu) {
    struct Shape {
        int64_t rows, columns;
    };
    for (const auto& [rows, columns] : {Shape{256, 512}, {130, 160}, {3, 70}, {129, 131}, {1, 1}, {7, 8}})
        for (const auto code : {WeightCode::nf4, WeightCode::fp8}) {
            const auto values = random_values<double>(rows * columns, 5);
            OnHost q(code, rows, columns);
            quantise({.out = q.matrix, .in = view_of(values)});
            const Twin out = output({rows, columns});
            dequantise(context(), {.out = out.device, .in = on_device(q.matrix)});
            EXPECT_EQ(read(out.device), q.widened<double>()) << rows << " x " << columns;
            release();
        }
}
INSTANTIATE_TEST_SUITE_P(Devices, QuantisedOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
