#include "train/optimizer/adamw_kernels.h"

#include "engine/device/without_cuda.h"

namespace colonnade::cuda {

void sum_squares(const Context&, const SquareSums&) {
    no_cuda();
}
void add_up(const Context&, const AddUp&) {
    no_cuda();
}
void clip_factor(const Context&, const ClipFactor&) {
    no_cuda();
}
void adamw(const Context&, const AdamWStep&, const AdamWCoefficients<float>&) {
    no_cuda();
}

}  // namespace colonnade::cuda
