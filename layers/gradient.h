#pragma once

namespace colonnade {

/// How a backward op writes a gradient. An empty gradient tensor is not computed.
enum class Grad { overwrite, accumulate };

/// The same as the beta of a GEMM.
constexpr double beta_of(Grad mode) {
    return mode == Grad::accumulate ? 1 : 0;
}

}  // namespace colonnade
