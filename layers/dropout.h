#pragma once
// Dropout (Srivastava et al., JMLR 15, 2014): an element is kept with probability 1 - p and divided by it, else it is 0.
// Which ones are kept is a pure function of (seed, stream, row, column): nothing is saved, backward asks again.

#include "engine/device/context.h"
#include "layers/gradient.h"

namespace colonnade {

struct DropoutMask {
    double p = 0;  ///< in [0, 1); 0: everything is kept
    uint64_t seed = 0, stream = 0;
};

struct Dropout {
    Tensor out;  ///< [rows, width]; may be `in`
    Grad mode = Grad::overwrite;
    Tensor in;  ///< [rows, width]
    DropoutMask mask;
};
/// out = or += kept * in / (1 - p): forward, and backward from the gradient of what forward gave.
void dropout(const Context& ctx, const Dropout& args);

/// Elements of a row share counters by four: element (row, column) is kept where word column % 4 of Philox block
/// row * dropout_blocks(width) + column / 4 is at least dropout_threshold(p).
constexpr int64_t dropout_blocks(int64_t width) {
    return (width + 3) / 4;
}
constexpr uint32_t dropout_threshold(double p) {
    return static_cast<uint32_t>(p * 0x1p32);
}

}  // namespace colonnade
