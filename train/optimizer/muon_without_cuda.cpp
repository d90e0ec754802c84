#include "engine/device/without_cuda.h"
#include "train/optimizer/muon_kernels.h"

namespace colonnade::cuda {

void muon_momentum(const Context&, const MuonStep&, const MuonCoefficients&) {
    no_cuda();
}
void muon_normalise(const Context&, const Tensor&, const Tensor&, const Tensor&) {
    no_cuda();
}
void muon_apply(const Context&, const MuonStep&, const Tensor&, const MuonCoefficients&) {
    no_cuda();
}

}  // namespace colonnade::cuda
