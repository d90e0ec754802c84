#pragma once
// How long FlashMask takes on random data.

#include "attention/random_attention.h"

namespace colonnade {

struct AttentionTimes {
    double active_tiles, visible_pairs;                      ///< shares of all tiles, of all (query, key) pairs
    double plan_seconds, forward_seconds, backward_seconds;  ///< medians
    /// Backward with Context::deterministic. The CPU is always deterministic: there it equals backward_seconds.
    double deterministic_seconds;
    /// Over visible pairs: 4 x head_dim forward and 10 x head_dim backward for each pair and query head.
    double forward_flops, backward_flops;
};
/// One untimed run, then `repeat` timed ones. A GPU is timed by events, with the host ahead of it as in a training
/// step.
AttentionTimes time_flashmask(const Context& ctx, const ColumnMask& mask, const AttentionSize& size, int repeat);

}  // namespace colonnade
