#pragma once
// GPU implementations of the layers. The public functions check shapes and dtypes and then call these, which enqueue on
// the context's stream. In a build without CUDA layers/cuda_kernels_without_cuda.cpp replaces them.

#include "layers/decode_linear.h"
#include "layers/dropout.h"
#include "layers/embedding.h"
#include "layers/embedding_noise.h"
#include "layers/fp8_product.h"
#include "layers/gated_linear.h"
#include "layers/gather.h"
#include "layers/head_loss.h"
#include "layers/kv_cache.h"
#include "layers/largest_logits.h"
#include "layers/linear.h"
#include "layers/policy_loss.h"
#include "layers/preference_loss.h"
#include "layers/quantised_matrix.h"
#include "layers/ranking_loss.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "layers/sampling.h"
#include "layers/score_head.h"
#include "layers/swiglu.h"
#include "layers/unpaired_loss.h"

namespace colonnade::cuda {

/// Also the forward of the embedding, which gathers rows of its table.
void gather_rows(const Context& ctx, const GatherRows& args);
void scatter_rows(const Context& ctx, const ScatterRows& args);
void embedding_backward(const Context& ctx, const EmbeddingBackward& args);
void add_embedding_noise(const Context& ctx, const EmbeddingNoise& args);

void rmsnorm_forward(const Context& ctx, const RmsNormForward& args);
void rmsnorm_backward(const Context& ctx, const RmsNormBackward& args);

void rope_angles(const Context& ctx, const RopeAngles& args);
void rope_apply(const Context& ctx, const RopeApply& args);

void swiglu_forward(const Context& ctx, const SwigluForward& args);
void swiglu_backward(const Context& ctx, const SwigluBackward& args);

/// True on a Hopper GPU if TMA can address the matrices: ffn and the row strides must be multiples of 8.
bool hopper_supports(const Context& ctx, const GateUpSwigluForward& args);
void hopper_gate_up_swiglu_forward(const Context& ctx, const GateUpSwigluForward& args);
bool hopper_supports(const Context& ctx, const DownSwigluBackward& args);
void hopper_down_swiglu_backward(const Context& ctx, const DownSwigluBackward& args);

/// Computes dbias only.
void bias_gradient(const Context& ctx, const LinearBackward& args);

void dropout(const Context& ctx, const Dropout& args);

void dequantise(const Context& ctx, const Dequantise& args);

/// Codes and scales as colonnade::gemm takes them for `a`: of the first rows, a multiple of four, and of the others.
struct QuantiseRows {
    Tensor codes, scales;            ///< u8 [whole rows, columns], f32 [columns / 128, whole rows]
    Tensor last_codes, last_scales;  ///< u8 [4, columns], right after `codes`; f32 [columns / 128, 4]; or empty
    Tensor in;                       ///< [rows, columns]
};
void quantise_rows(const Context& ctx, const QuantiseRows& args);
/// Codes and scales as colonnade::gemm takes them for `b`, or a slice of them.
struct WeightCodes {
    Tensor codes, scales;                     ///< of [rows, columns], or of the transpose
    Tensor in{};                              ///< [rows, columns], contiguous,
    const QuantisedMatrix* matrix = nullptr;  ///< or this one in e4m3
    bool transposed = false;
};
void weight_codes(const Context& ctx, const WeightCodes& args);

/// One chunk: args.logits holds its logits. Writes nll and correct and, in training, replaces the logits by their
/// gradients.
void row_losses(const Context& ctx, const HeadLoss& args);

void largest_logits(const Context& ctx, const LargestLogits& args);

void sequence_log_probabilities(const Context& ctx, const SequenceLogProbabilities& args);
void preference_loss(const Context& ctx, const PreferencePairs& args);
void target_coefficients(const Context& ctx, const TargetCoefficients& args);

void policy_loss(const Context& ctx, const PolicyLossStep& args);
void target_scales(const Context& ctx, const TargetScales& args);
void importance_factors(const Context& ctx, const ImportanceFactors& args);
void unpaired_loss(const Context& ctx, const UnpairedAnswers& args);
void add_log_ratios(const Context& ctx, const AddLogRatios& args);

void score_forward(const Context& ctx, const ScoreForward& args);
void score_backward(const Context& ctx, const ScoreBackward& args);
void ranking_loss(const Context& ctx, const RankingLoss& args);

/// True if the kernel for few rows takes these operands: at most decode_rows rows, rows of 32 elements and 16-byte
/// aligned.
bool decode_kernel_takes(const DecodeLinear& args);
void decode_linear(const Context& ctx, const DecodeLinear& args);
void finish_decode_linear(const Context& ctx, const DecodeFinishing& args);
void append_to_cache(const Context& ctx, const AppendToCache& args);
void sample_tokens(const Context& ctx, const SampleTokens& args);

}  // namespace colonnade::cuda
