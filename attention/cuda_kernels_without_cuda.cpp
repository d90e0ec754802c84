#include "attention/cuda_kernels.h"

#include "attention/hopper/hopper.h"
#include "engine/device/without_cuda.h"

namespace colonnade {

namespace cuda {

void decode_attention(const Context&, const DecodeAttention&) {
    no_cuda();
}
int64_t decode_attention_scratch_bytes(const DecodeAttentionSizes&) {
    no_cuda();
}
void portable_forward(const Context&, const FlashMaskForward&) {
    no_cuda();
}
void portable_backward(const Context&, const FlashMaskBackward&) {
    no_cuda();
}
bool hopper_supports(const Context&, const FlashMaskForward&) {
    return false;
}
void hopper_forward(const Context&, const FlashMaskForward&) {
    no_cuda();
}
bool hopper_supports(const Context&, const FlashMaskBackward&) {
    return false;
}
void hopper_backward(const Context&, const FlashMaskBackward&) {
    no_cuda();
}
void build_tile_plan(const Context&, const TilePlanBuild&) {
    no_cuda();
}

}  // namespace cuda

}  // namespace colonnade
