// Muon against torch.optim.Muon (tests/golden/make_muon_golden.py) in double; on a GPU within the rounding of bf16; the
// singular values of an update are near 1; a clip factor of NaN changes nothing.

#include "train/optimizer/muon.h"

#include <gtest/gtest.h>

#include "engine/io/json.h"
#include "tests/support/optimizer_case.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

class Muon : public OnDevice {
  protected:
    void prepare(int64_t rows, int64_t columns) {
        rows_ = rows, columns_ = columns;
        const DType dtype = GetParam().dtype;
        w_ = make_weights(rows * columns);
        m_ = make(dtype, rows * columns);
        g_ = make(dtype, rows * columns);
        clip_ = put(std::vector<double>{1, 1});
        arena_ = std::make_unique<Arena>(ctx_.device, size_t{1} << 22);
        workspace_ = MuonWorkspace::lay_out(*arena_, gpu_ ? DType::bf16 : dtype,
                                            {.elements = rows * columns, .shorter_side = std::min(rows, columns)});
    }
    void step(const MuonSettings& settings, double rate) {
        const auto matrix = [&](const Tensor& t) { return t.empty() ? t : t.view({rows_, columns_}); };
        muon(ctx_, {.weights = matrix(w_.values),
                    .low = matrix(w_.low),
                    .m = matrix(m_),
                    .gradients = matrix(g_),
                    .clip = clip_,
                    .settings = settings,
                    .learning_rate = rate,
                    .workspace = workspace_});
    }
    int64_t rows_ = 0, columns_ = 0;
    Weights w_;
    Tensor m_, g_, clip_;
    std::unique_ptr<Arena> arena_;
    MuonWorkspace workspace_;
};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
    return worst;
}

TEST_P(Muon, EqualsTorch) {
    const double bound = GetParam().dtype == DType::f64 ? 1e-12 : gpu_ ? 0.02 : 1e-5;
    for (const Json& golden : read_json_file(golden_file("muon_golden.json"))) {
        const int64_t rows = golden.at("rows"), columns = golden.at("columns");
        if (gpu_ && (rows % 8 != 0 || columns % 8 != 0)) continue;  // cuBLASLt's alignment
        prepare(rows, columns);
        write(w_, golden.at("start").get<std::vector<double>>());
        for (size_t t = 0; t < 3; ++t) {
            write(g_, golden.at("gradients")[t].get<std::vector<double>>());
            step({.momentum = golden.at("momentum"), .weight_decay = golden.at("weight_decay")}, golden.at("lr"));
            const double error = largest_difference(read(w_), golden.at("weights")[t].get<std::vector<double>>());
            EXPECT_LT(error, bound * (1 + static_cast<double>(t))) << rows << " x " << columns << ", step " << t;
        }
        EXPECT_LT(largest_difference(read(m_), golden.at("momentum_buffer").get<std::vector<double>>()),
                  gpu_ ? 1e-6 : bound);
    }
}

// With weights 0, momentum 0 and learning rate 5 / sqrt(max) the new weights are -X, whose rows are nearly orthogonal.
TEST_P(Muon, UpdatesAreNearlyOrthogonal) {
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{64, 160}, {160, 64}, {128, 128}}) {
        prepare(rows, columns);
        std::vector<double> gradient(static_cast<size_t>(rows * columns));
        for (size_t i = 0; i < gradient.size(); ++i) gradient[i] = 1e-4 * normal(1, i);
        write(g_, gradient);
        step({.momentum = 0}, 5 / std::sqrt(static_cast<double>(std::max(rows, columns))));
        const std::vector<double> x = read(w_);
        const int64_t shorter = std::min(rows, columns);
        for (int64_t i = 0; i < shorter; i += 17)
            for (int64_t j = 0; j < shorter; j += 13) {
                double product = 0;
                for (int64_t k = 0; k < std::max(rows, columns); ++k) {
                    const auto at = [&](int64_t l) {
                        return static_cast<size_t>(rows <= columns ? l * columns + k : k * columns + l);
                    };
                    product += x[at(i)] * x[at(j)];
                }
                // The coefficients let singular values end between 0.7 and 1.2.
                EXPECT_NEAR(product, i == j ? 0.95 : 0, 0.5) << i << " " << j;
            }
        double squares = 0;
        for (const double value : x) squares += value * value;
        EXPECT_NEAR(squares / static_cast<double>(shorter), 0.85, 0.25);
    }
}

TEST_P(Muon, ChangesNothingIfTheClipFactorIsNan) {
    prepare(64, 64);
    write(w_, std::vector<double>(64 * 64, 0.5));
    fill(clip_, std::vector<double>{1, NAN});
    const auto before = read(w_);
    const auto m = bytes(m_);
    write(g_, std::vector<double>(64 * 64, NAN));
    step({}, 0.1);
    EXPECT_TRUE(read(w_) == before);
    EXPECT_TRUE(bytes(m_) == m);
}

INSTANTIATE_TEST_SUITE_P(Devices, Muon,
                         testing::Values(Place{Device::cpu, DType::f32, DType::f32},
                                         Place{Device::cpu, DType::f64, DType::f64},
                                         Place{Device::cuda, DType::f32, DType::f32}),
                         name_of_place);

}  // namespace
}  // namespace colonnade
