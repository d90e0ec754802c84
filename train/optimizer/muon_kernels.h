#pragma once
// The parts of a Muon update that run over elements: on a GPU called after the checks of train/optimizer/muon.h.

#include "train/optimizer/muon.h"

namespace colonnade {

constexpr double muon_epsilon = 1e-7;

struct MuonCoefficients {
    double momentum;
    double keep;       ///< 1 - lr * decay
    double step_size;  ///< lr * 0.2 * sqrt(max(rows, columns))
};

namespace cuda {

/// m and u; u replaces the gradients.
void muon_momentum(const Context& ctx, const MuonStep& args, const MuonCoefficients& c);
/// x = u / max(sqrt(sum), epsilon)
void muon_normalise(const Context& ctx, const Tensor& x, const Tensor& u, const Tensor& sum);
void muon_apply(const Context& ctx, const MuonStep& args, const Tensor& x, const MuonCoefficients& c);

}  // namespace cuda
}  // namespace colonnade
