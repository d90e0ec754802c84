#include "layers/cuda_kernels.h"

#include "engine/device/without_cuda.h"

namespace colonnade::cuda {

void gather_rows(const Context&, const GatherRows&) {
    no_cuda();
}
void scatter_rows(const Context&, const ScatterRows&) {
    no_cuda();
}
void embedding_backward(const Context&, const EmbeddingBackward&) {
    no_cuda();
}
void add_embedding_noise(const Context&, const EmbeddingNoise&) {
    no_cuda();
}
void rmsnorm_forward(const Context&, const RmsNormForward&) {
    no_cuda();
}
void rmsnorm_backward(const Context&, const RmsNormBackward&) {
    no_cuda();
}
void rope_angles(const Context&, const RopeAngles&) {
    no_cuda();
}
void rope_apply(const Context&, const RopeApply&) {
    no_cuda();
}
void swiglu_forward(const Context&, const SwigluForward&) {
    no_cuda();
}
void swiglu_backward(const Context&, const SwigluBackward&) {
    no_cuda();
}
bool hopper_supports(const Context&, const GateUpSwigluForward&) {
    return false;
}
void hopper_gate_up_swiglu_forward(const Context&, const GateUpSwigluForward&) {
    no_cuda();
}
bool hopper_supports(const Context&, const DownSwigluBackward&) {
    return false;
}
void hopper_down_swiglu_backward(const Context&, const DownSwigluBackward&) {
    no_cuda();
}
void bias_gradient(const Context&, const LinearBackward&) {
    no_cuda();
}
void dequantise(const Context&, const Dequantise&) {
    no_cuda();
}
void quantise_rows(const Context&, const QuantiseRows&) {
    no_cuda();
}
void weight_codes(const Context&, const WeightCodes&) {
    no_cuda();
}
void dropout(const Context&, const Dropout&) {
    no_cuda();
}
void row_losses(const Context&, const HeadLoss&) {
    no_cuda();
}
void largest_logits(const Context&, const LargestLogits&) {
    no_cuda();
}
void sequence_log_probabilities(const Context&, const SequenceLogProbabilities&) {
    no_cuda();
}
void preference_loss(const Context&, const PreferencePairs&) {
    no_cuda();
}
void target_coefficients(const Context&, const TargetCoefficients&) {
    no_cuda();
}
void policy_loss(const Context&, const PolicyLossStep&) {
    no_cuda();
}
void target_scales(const Context&, const TargetScales&) {
    no_cuda();
}
void importance_factors(const Context&, const ImportanceFactors&) {
    no_cuda();
}
void unpaired_loss(const Context&, const UnpairedAnswers&) {
    no_cuda();
}
void add_log_ratios(const Context&, const AddLogRatios&) {
    no_cuda();
}
void score_forward(const Context&, const ScoreForward&) {
    no_cuda();
}
void score_backward(const Context&, const ScoreBackward&) {
    no_cuda();
}
void ranking_loss(const Context&, const RankingLoss&) {
    no_cuda();
}

bool decode_kernel_takes(const DecodeLinear&) {
    return false;
}
void decode_linear(const Context&, const DecodeLinear&) {
    no_cuda();
}
void finish_decode_linear(const Context&, const DecodeFinishing&) {
    no_cuda();
}
void append_to_cache(const Context&, const AppendToCache&) {
    no_cuda();
}
void sample_tokens(const Context&, const SampleTokens&) {
    no_cuda();
}

}  // namespace colonnade::cuda
