// 8-bit codes of moments: rounding keeps the mean, nothing leaves the range, v is never 0 beside a larger one, and the
// error of an update is below that of bitsandbytes' codes on the same moments.

#include "train/optimizer/moment_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "engine/device/philox.h"
#include "engine/io/json.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

constexpr uint32_t all_randoms = 1 << 16;

TEST(MomentCodes, RoundingKeepsTheMean) {
    const float largest = 0.37f;
    const MomentUnit of_m = m_unit(largest), of_v = v_unit(largest);
    for (const double share : {1.0, 0.987, 0.5, 0.31, 0.02, 3e-3, 1e-4, 1e-6}) {
        const auto x = static_cast<float>(share * largest);
        double m = 0, minus_m = 0, v = 0;
        float lowest = FLT_MAX, highest = 0;
        for (uint32_t random = 0; random < all_randoms; ++random) {
            m += m_of(m_code(x, of_m, random), of_m.unit);
            minus_m += m_of(m_code(-x, of_m, random), of_m.unit);
            const float value = v_of(v_code(x, of_v, random), of_v.unit);
            v += value;
            lowest = std::min(lowest, value);
            highest = std::max(highest, value);
        }
        const double step = std::max<double>(highest - lowest, 1e-6 * x);
        EXPECT_NEAR(v / all_randoms, x, 2e-4 * step + 1e-6 * x) << share;
        EXPECT_NEAR(m / all_randoms, x, 2e-6 * largest) << share;
        EXPECT_NEAR(minus_m, -m, 0) << share;
    }
}

TEST(MomentCodes, CodesReadBackAsThemselves) {
    for (const float largest : {1.0f, 3e-7f, 0x1p-94f, 1e30f}) {
        const MomentUnit of_m = m_unit(largest), of_v = v_unit(largest);
        for (int code = 0; code < 256; ++code) {
            const auto byte = static_cast<uint8_t>(code);
            for (const uint32_t random : {0u, 1u, 32768u, 65534u}) {
                if (code != 128) {  // -128 is no code
                    EXPECT_EQ(m_code(m_of(byte, of_m.unit), of_m, random), byte) << largest;
                }
                EXPECT_EQ(v_code(v_of(byte, of_v.unit), of_v, random), byte) << largest;
            }
        }
        EXPECT_NEAR(m_of(127, of_m.unit), largest, 1e-6f * largest);
        EXPECT_EQ(v_of(255, of_v.unit), largest);
    }
}

TEST(MomentCodes, HoldTheLimits) {
    for (const float nothing : {0.0f, FLT_MIN, 0x1p-95f}) {
        const MomentUnit of_v = v_unit(nothing), of_m = m_unit(nothing);
        EXPECT_EQ(v_of(v_code(nothing, of_v, 65535), of_v.unit), 0);
        EXPECT_EQ(m_of(m_code(nothing, of_m, 65535), of_m.unit), 0);
    }
    const MomentUnit of_v = v_unit(1e-3f);
    for (const float small : {0.0f, 1e-30f, 1e-14f}) EXPECT_GT(v_of(v_code(small, of_v, 0), of_v.unit), 0) << small;
    EXPECT_EQ(v_code(2e-3f, of_v, 0), 255);  // more than the largest
}

TEST(MomentCodes, UpdatesAreCloserThanBitsandbytes) {
    const Json golden = read_json_file(golden_file("moments_golden.json"));
    const auto m = golden.at("m").get<std::vector<float>>(), v = golden.at("v").get<std::vector<float>>();
    const auto their_m = golden.at("bitsandbytes_m").get<std::vector<float>>(),
               their_v = golden.at("bitsandbytes_v").get<std::vector<float>>();
    const auto squared_error = [&](size_t i, float m_rounded, float v_rounded) {
        const double error = m_rounded / std::sqrt(std::max(v_rounded, FLT_MIN)) - m[i] / std::sqrt(v[i]);
        return error * error;
    };
    const Philox random{3, 1};
    double ours = 0, theirs = 0;
    for (size_t begin = 0; begin < m.size(); begin += moment_block) {
        float largest_m = 0, largest_v = 0;
        for (size_t i = begin; i < begin + moment_block; ++i) {
            largest_m = std::max(largest_m, std::abs(m[i]));
            largest_v = std::max(largest_v, v[i]);
        }
        const MomentUnit of_m = m_unit(largest_m), of_v = v_unit(largest_v);
        for (size_t i = begin; i < begin + moment_block; ++i) {
            theirs += squared_error(i, their_m[i], their_v[i]);
            for (uint64_t draw = 0; draw < 16; ++draw) {
                const auto words = random.block(i * 16 + draw);
                ours += squared_error(i, m_of(m_code(m[i], of_m, words[0] & 0xffff), of_m.unit),
                                      v_of(v_code(v[i], of_v, words[1] & 0xffff), of_v.unit)) /
                        16;
            }
        }
    }
    EXPECT_LT(std::sqrt(ours / static_cast<double>(m.size())), 0.08);  // of updates of about 1
    EXPECT_LT(4 * ours, theirs);
}

}  // namespace
}  // namespace colonnade
