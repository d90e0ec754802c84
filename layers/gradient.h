#pragma once

namespace colonnade {

/// How a backward op writes a gradient. An empty gradient tensor means: not wanted.
enum class Grad { overwrite, accumulate };

}  // namespace colonnade
