#pragma once
// Span: bytes [begin, end) of a text.

#include <cstddef>

namespace colonnade {

struct Span {
    size_t begin = 0, end = 0;
    size_t size() const { return end - begin; }
    bool operator==(const Span&) const = default;
};

}  // namespace colonnade
