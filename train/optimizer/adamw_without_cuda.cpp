#include "train/optimizer/adamw_kernels.h"

namespace colonnade::cuda {
namespace {

[[noreturn]] void no_cuda() {
    fail(Exit::config, "this build has no CUDA (nvcc was not found when it was configured)");
}

}  // namespace

void add_squares(const Context&, const AddSquares&) {
    no_cuda();
}
void clip_factor(const Context&, const ClipFactor&) {
    no_cuda();
}
void adamw(const Context&, const AdamWStep&, const AdamWCoefficients<float>&) {
    no_cuda();
}
void cast(const Context&, const Tensor&, const Tensor&) {
    no_cuda();
}

}  // namespace colonnade::cuda
