#pragma once

namespace colonnade {

/// Activations that backward computes again instead of keeping them: less memory for more time. The bits of every
/// gradient stay the same.
///   selective   outputs of the norms and of SwiGLU; costs memory bandwidth only
///   block       everything but the input of each block; costs a second forward pass
enum class Recompute { none, selective, block };

}  // namespace colonnade
