#pragma once
// AdamW with decoupled weight decay (arXiv 1711.05101), on the flat buffers:
//
//     g = gradient_scale * gradient
//     m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//     w = w (1 - lr * decay) - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
//
// Matrices decay, norms and biases do not (Parameter::decay).

#include "engine/context.h"
#include "train/parameters.h"

namespace colonnade {

struct AdamWSettings {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};

struct AdamWStep {
    Tensor weights, m, v;  ///< flat, updated
    Tensor gradients;      ///< flat
    const ParameterList& parameters;
    const AdamWSettings& settings;
    double learning_rate;
    double gradient_scale;  ///< the clip factor
    int64_t step;           ///< 1 for the first update
};
void adamw(const Context& ctx, const AdamWStep& args);

/// Euclidean norm of a flat buffer, summed in double over fixed blocks: the same bits for any number of threads.
double gradient_norm(const Context& ctx, const Tensor& gradients);

}  // namespace colonnade
