#pragma once
// Small pictures of a run's data as SVG: the tiles of a mask, a histogram.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attention/mask.h"

namespace colonnade {

/// A mask as rows of tiles. Classes are those of tile_classes() (attention/plan_picture.h): '#' all pairs visible, '/'
/// some, '.' none.
struct TilePicture {
    int64_t tokens = 0;                  ///< rows and columns of the mask
    int64_t tile = 0;                    ///< tokens on a side of a tile
    std::vector<std::string> classes{};  ///< a line per row block, a character per column block
};
std::string svg_of(const TilePicture& picture);
/// The tiles of a mask's first sheet, at most 64 on a side.
TilePicture tile_picture(const ColumnMask& mask);
/// Batch 0, head 0 of a mask.
ColumnMask first_sheet(const ColumnMask& mask);

/// Counts of lengths in [begin, end).
struct Bin {
    int64_t begin = 0, end = 0, count = 0;
    bool operator==(const Bin&) const = default;
};
/// At most `most` bins of equal width that hold all lengths; none without lengths.
std::vector<Bin> histogram(const std::vector<int64_t>& lengths, int64_t most = 40);
std::string svg_of(const std::vector<Bin>& bins, const std::string& title);

}  // namespace colonnade
