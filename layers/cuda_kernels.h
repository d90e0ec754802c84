#pragma once
// The GPU side of the layers, behind the checks of their public functions; each launches on the context's stream.
// layers/cuda_kernels_without_cuda.cpp stands in where the build has no CUDA.

#include "layers/dropout.h"
#include "layers/embedding.h"
#include "layers/gated_linear.h"
#include "layers/gather.h"
#include "layers/head_loss.h"
#include "layers/linear.h"
#include "layers/preference_loss.h"
#include "layers/ranking_loss.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "layers/score_head.h"
#include "layers/swiglu.h"

namespace colonnade::cuda {

/// An embedding is a gather of rows of its table, too.
void gather_rows(const Context& ctx, const GatherRows& args);
void scatter_rows(const Context& ctx, const ScatterRows& args);
void embedding_backward(const Context& ctx, const EmbeddingBackward& args);

void rmsnorm_forward(const Context& ctx, const RmsNormForward& args);
void rmsnorm_backward(const Context& ctx, const RmsNormBackward& args);

void rope_angles(const Context& ctx, const RopeAngles& args);
void rope_apply(const Context& ctx, const RopeApply& args);

void swiglu_forward(const Context& ctx, const SwigluForward& args);
void swiglu_backward(const Context& ctx, const SwigluBackward& args);

/// A Hopper GPU and matrices that TMA can follow: ffn a multiple of 8, and so the rows' strides.
bool hopper_supports(const Context& ctx, const GatedLinearForward& args);
void hopper_gated_linear(const Context& ctx, const GatedLinearForward& args);
bool hopper_supports(const Context& ctx, const SwigluLinearBackward& args);
void hopper_swiglu_linear_backward(const Context& ctx, const SwigluLinearBackward& args);

/// dbias alone.
void bias_gradient(const Context& ctx, const LinearBackward& args);

void dropout(const Context& ctx, const Dropout& args);

/// One chunk, whose logits lie in all rows of args.logits: nll, correct and, unless it is evaluation, the gradients of
/// the logits in their place.
void row_losses(const Context& ctx, const HeadLoss& args);

void branch_log_probabilities(const Context& ctx, const BranchLogProbabilities& args);
void preference_loss(const Context& ctx, const PreferencePairs& args);
void target_coefficients(const Context& ctx, const TargetCoefficients& args);

void score_forward(const Context& ctx, const ScoreForward& args);
void score_backward(const Context& ctx, const ScoreBackward& args);
void ranking_loss(const Context& ctx, const RankingLoss& args);

}  // namespace colonnade::cuda
