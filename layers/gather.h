#pragma once
// Row gather and its gradient: the end of the model computes only the rows that have a target. A row may occur twice (the
// last prompt position of a preference pair has one target per answer); its gradients are then summed in list order.
//
// The CPU accepts rows in any order and checks them. A GPU needs ascending rows for the gradient, so that equal rows
// are neighbours, and does not check them: the host made them.

#include "engine/device/context.h"

namespace colonnade {

struct GatherRows {
    Tensor out;   ///< [count, hidden]
    Tensor in;    ///< [tokens, hidden]
    Tensor rows;  ///< i32 [count], each in [0, tokens); the CPU throws Exit::internal
};
void gather_rows(const Context& ctx, const GatherRows& args);

struct ScatterRows {
    Tensor din;   ///< [tokens, hidden]: zeroed, then din[rows[i]] += dout[i]; on a GPU summed in f32, rounded once
    Tensor dout;  ///< [count, hidden]
    Tensor rows;  ///< i32 [count]; on a GPU ascending
};
void scatter_rows(const Context& ctx, const ScatterRows& args);

}  // namespace colonnade
