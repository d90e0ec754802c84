#pragma once
// Row gather and its gradient: the objective runs the head only on rows that carry a target. A row may be wanted twice
// (the last prompt position of a preference pair has one target per answer): its gradients add up, in list order.

#include <span>

#include "engine/context.h"

namespace colonnade {

struct GatherRows {
    Tensor out;                     ///< [count, hidden]
    Tensor in;                      ///< [tokens, hidden]
    std::span<const int32_t> rows;  ///< [count], ascending order not required; each in [0, tokens), else Exit::internal
};
void gather_rows(const Context& ctx, const GatherRows& args);

struct ScatterRows {
    Tensor din;   ///< [tokens, hidden]: zeroed, then din[rows[i]] += dout[i]
    Tensor dout;  ///< [count, hidden]
    std::span<const int32_t> rows;
};
void scatter_rows(const Context& ctx, const ScatterRows& args);

}  // namespace colonnade
