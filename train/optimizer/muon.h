#pragma once
// Muon (Keller Jordan et al., 2024) for one matrix [rows, columns], with the learning rate of AdamW (Moonlight, arXiv
// 2502.16982) and the conventions of torch.optim.Muon (adjust_lr_fn "match_rms_adamw"):
//
//     g = clip factor * gradient
//     m = momentum m + (1 - momentum) g
//     u = momentum m + (1 - momentum) g                        (Nesterov)
//     X = u / max(|u|, 1e-7);   5 times:  A = X X^T,  X = a X + (b A + c A A) X     a, b, c = 3.4445, -4.7750, 2.0315
//     w = w (1 - lr * decay) - lr * 0.2 sqrt(max(rows, columns)) * X
//
// The five steps of Newton and Schulz bring the singular values of X near 1. If rows > columns they work on the
// transpose. On a GPU X is bf16, on the CPU it has the dtype of the weights. A clip factor of NaN changes nothing.
//
// Muon is for the matrices of the blocks; embedding, head, norms and biases take AdamW.

#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

struct MuonSettings {
    double momentum = 0.95, weight_decay = 0;
};

/// Memory that the updates of all matrices share.
struct MuonWorkspace {
    Tensor x, other;          ///< flat, of the largest matrix
    Tensor gram, polynomial;  ///< flat, of the largest shorter side, squared
    Tensor sum;               ///< f64 [1]
    Tensor sums;              ///< f64: of squares

    struct Sizes {
        int64_t elements = 0, shorter_side = 0;  ///< largest
    };
    /// `dtype`: that of X.
    static MuonWorkspace lay_out(Arena& arena, DType dtype, const Sizes& sizes);
};

struct MuonStep {
    Tensor weights;    ///< [rows, columns], updated: f32 or f64; on a GPU bf16, the upper halves as in AdamWStep
    Tensor low{};      ///< GPU: i16, the lower halves
    Tensor m;          ///< [rows, columns], updated; dtype of weights, on a GPU f32
    Tensor gradients;  ///< likewise; overwritten
    Tensor clip;       ///< f64 [2]: ClipFactor::out
    const MuonSettings& settings;
    double learning_rate;
    const MuonWorkspace& workspace;
};
void muon(const Context& ctx, const MuonStep& args);

}  // namespace colonnade
