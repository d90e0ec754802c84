#pragma once
// Dropout (Srivastava et al., JMLR 15, 2014): an element is kept with probability 1 - p and divided by it, else it
// becomes 0. The mask is a pure function of (seed, stream, row, column): it is not saved, backward computes it again.
// A tensor of some rows of a larger one gets their mask, if it says which rows they are.

#include "engine/device/context.h"
#include "layers/gradient.h"

namespace colonnade {

struct DropoutMask {
    double p = 0;  ///< in [0, 1); 0 keeps everything
    uint64_t seed = 0, stream = 0;
    Tensor rows{};      ///< i32 [rows]: the row of the mask for each row of the tensor
    int64_t first = 0;  ///< without `rows`: the row of the mask for the first row; the others follow
};

struct Dropout {
    Tensor out;  ///< [rows, width]; may alias in
    Grad mode = Grad::overwrite;
    Tensor in;  ///< [rows, width]
    DropoutMask mask;
};
/// out = (or +=) kept * in / (1 - p). Forward; also backward, with the gradient of forward's output as `in`.
void dropout(const Context& ctx, const Dropout& args);

/// Four elements of a row share a counter: element (row, column) is kept if word column % 4 of Philox block
/// row * dropout_blocks(width) + column / 4 is at least dropout_threshold(p).
constexpr int64_t dropout_blocks(int64_t width) {
    return (width + 3) / 4;
}
constexpr uint32_t dropout_threshold(double p) {
    return static_cast<uint32_t>(p * 0x1p32);
}

}  // namespace colonnade
