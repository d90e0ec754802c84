#pragma once
// The element types of GGUF files (ggml's types), how the elements of each become floats, and, for the types that are
// written, how floats become elements. A quantised type stores the elements of a row in blocks: a few scales and a small
// integer per element.

#include <cstdint>
#include <limits>

#include "engine/device/tensor.h"

namespace colonnade {

struct GgufType {
    uint32_t id;       ///< as the file stores it
    const char* name;  ///< as ggml spells it: "F16", "Q4_K"
    uint32_t block;    ///< elements per block; a row is a whole number of blocks
    uint32_t bytes;    ///< bytes per block
    DType dtype;       ///< of the elements in memory
    bool plain;        ///< the file stores the elements as `dtype`
    /// Turns `count` blocks into count * block floats, exactly as ggml and the Python package gguf do. Null for types
    /// that hold integers and for types that are not supported.
    void (*decode)(const uint8_t* blocks, int64_t count, float* to);
    /// Turns count * block floats into `count` blocks, with the bytes that ggml and the Python package gguf write. Null
    /// for types that are only read. The floats are below `limit`.
    void (*encode)(const float* from, int64_t count, uint8_t* blocks) = nullptr;
    /// Floats of this magnitude and above become infinite; infinite: none do.
    float limit = std::numeric_limits<float>::infinity();
    /// False: the elements cannot be read at all.
    bool readable() const { return decode || plain; }
};

/// Null if ggml has no such type.
const GgufType* find_gguf_type(uint32_t id);
const GgufType* find_gguf_type(const char* name);

}  // namespace colonnade
