#include "train/report/pictures.h"

#include <fmt/format.h>

#include <algorithm>

#include "attention/plan_picture.h"
#include "engine/device/human_units.h"
#include "train/report/html.h"

namespace colonnade {

static constexpr int64_t most_tiles = 64;  ///< on a side

std::string svg_of(const TilePicture& picture) {
    if (picture.classes.empty()) return "";
    constexpr double side = 320, left = 60, top = 22;
    const double cell = side / static_cast<double>(picture.classes.size());
    const auto shapes = [&](char of) {  // neighbours of a row in one rectangle
        std::string path;
        for (size_t row = 0; row < picture.classes.size(); ++row) {
            const std::string& classes = picture.classes[row];
            for (size_t begin = 0, end; begin < classes.size(); begin = end) {
                for (end = begin; end < classes.size() && classes[end] == classes[begin];) ++end;
                if (classes[begin] != of) continue;
                const double width = cell * static_cast<double>(end - begin);
                path += fmt::format("M{:.2f} {:.2f}h{:.2f}v{:.2f}h-{:.2f}z", left + cell * static_cast<double>(begin),
                                    top + cell * static_cast<double>(row), width, cell, width);
            }
        }
        return path;
    };
    return fmt::format(
        "<svg class=\"mask\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" "
        "aria-label=\"tiles of the mask\">\n<rect class=\"none\" x=\"{2}\" y=\"{3}\" width=\"{4}\" height=\"{4}\"/>\n"
        "<path class=\"full\" d=\"{5}\"/>\n<path class=\"partial\" d=\"{6}\"/>\n"
        "<text x=\"{2}\" y=\"14\">keys</text><text class=\"end\" x=\"{7:.0f}\" y=\"14\">{8}</text>"
        "<text class=\"end\" x=\"{9:.0f}\" y=\"{10:.0f}\">queries</text>"
        "<text class=\"end\" x=\"{9:.0f}\" y=\"{11:.0f}\">{8}</text>\n</svg>\n",
        left + side + 8, top + side + 8, left, top, side, shapes('#'), shapes('/'), left + side, picture.tokens,
        left - 6, top + 12, top + side);
}

ColumnMask first_sheet(const ColumnMask& mask) {
    ColumnMask first = mask;
    first.batch = first.heads = 1;
    for (auto* vector : {&first.lts, &first.lte, &first.uts, &first.ute})
        if (!vector->empty()) vector->resize(static_cast<size_t>(mask.columns));
    if (!first.row_positions.empty()) first.row_positions.resize(static_cast<size_t>(mask.rows));
    return first;
}

TilePicture tile_picture(const ColumnMask& mask) {
    const ColumnMask first = first_sheet(mask);
    const int64_t longest = std::max(first.rows, first.columns);
    TilePicture picture{.tokens = first.columns, .tile = std::max<int64_t>(1, (longest + most_tiles - 1) / most_tiles)};
    const TilePlan plan = make_tile_plan(first, picture.tile, picture.tile);
    const std::string classes = tile_classes({}, plan);
    for (int64_t row = 0; row < plan.row_blocks; ++row)
        picture.classes.push_back(
            classes.substr(static_cast<size_t>(row * plan.column_blocks), static_cast<size_t>(plan.column_blocks)));
    return picture;
}

std::vector<Bin> histogram(const std::vector<int64_t>& lengths, int64_t most) {
    if (lengths.empty()) return {};
    const auto [least, greatest] = std::ranges::minmax(lengths);
    const int64_t width = (greatest - least) / most + 1;
    std::vector<Bin> bins;
    for (int64_t begin = least; begin <= greatest; begin += width) bins.push_back({begin, begin + width, 0});
    for (const int64_t length : lengths) ++bins[static_cast<size_t>((length - least) / width)].count;
    return bins;
}

std::string svg_of(const std::vector<Bin>& bins, const std::string& title) {
    if (bins.empty()) return "";
    constexpr double width = 520, height = 130, left = 8, top = 30;
    const int64_t most = std::max<int64_t>(1, std::ranges::max(bins, {}, &Bin::count).count);
    const double bar = width / static_cast<double>(bins.size());
    std::string bars;
    for (size_t i = 0; i < bins.size(); ++i) {
        const Bin& bin = bins[i];
        if (bin.count == 0) continue;
        const double high = std::max(1.0, height * static_cast<double>(bin.count) / static_cast<double>(most));
        const std::string range =
            bin.end - bin.begin == 1 ? fmt::format("{}", bin.begin) : fmt::format("{} to {}", bin.begin, bin.end - 1);
        bars += fmt::format(
            "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"><title>{}: {}</title></rect>\n",
            left + bar * static_cast<double>(i), top + height - high, std::max(bar - 1, 1.0), high, range, bin.count);
    }
    return fmt::format(
        "<svg class=\"bars\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" "
        "aria-label=\"{}\">\n<text class=\"title\" x=\"{}\" y=\"16\">{}</text>\n{}"
        "<path class=\"axis\" d=\"M{} {:.0f}h{}\"/><text x=\"{}\" y=\"{:.0f}\">{}</text>"
        "<text class=\"end\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text>"
        "<text class=\"end\" x=\"{:.0f}\" y=\"16\">highest bar: {}</text>\n</svg>\n",
        left + width + 8, top + height + 22, escaped(title), left, escaped(title), bars, left, top + height, width,
        left, top + height + 16, bins.front().begin, left + width, top + height + 16, bins.back().end - 1, left + width,
        human_count(static_cast<double>(most)));
}

}  // namespace colonnade
