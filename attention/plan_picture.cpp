#include "attention/plan_picture.h"

#include <algorithm>

namespace colonnade {
namespace {

constexpr char empty = '.', partial = '/', full = '#';

int64_t blocks_of(int64_t n, int64_t tile) {
    return (n + tile - 1) / tile;
}

/// The character for n x n tiles, clipped at the ends of the plan.
char merged(std::string_view sheet, const TilePlan& plan, int64_t first_row, int64_t first_column, int64_t n) {
    const auto at = [&](int64_t r, int64_t c) { return sheet[static_cast<size_t>(r * plan.column_blocks + c)]; };
    const char first = at(first_row, first_column);
    for (int64_t r = first_row; r < std::min(first_row + n, plan.row_blocks); ++r)
        for (int64_t c = first_column; c < std::min(first_column + n, plan.column_blocks); ++c)
            if (at(r, c) != first) return partial;
    return first;
}

double percent(int64_t part, int64_t of) {
    return of == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(of);
}

}  // namespace

std::string tile_classes(const Context& ctx, const TilePlan& plan) {
    const int64_t sheets = plan.batch * plan.heads;
    std::string classes(static_cast<size_t>(sheets * plan.row_blocks * plan.column_blocks), empty);
    if (plan.device() == Device::cpu) {
        for (int64_t row = 0; row < sheets * plan.row_blocks; ++row)
            for (int64_t t = plan.cpu.by_row_begin[static_cast<size_t>(row)];
                 t < plan.cpu.by_row_begin[static_cast<size_t>(row) + 1]; ++t) {
                const CpuTilePlan::Tile tile = plan.cpu.by_row[static_cast<size_t>(t)];
                classes[static_cast<size_t>(row * plan.column_blocks + tile.index)] = tile.partial ? partial : full;
            }
        return classes;
    }
    require(ctx.gpu != nullptr, "a picture of a GPU's tile plan needs a context with that GPU");
    const auto mark = [&](const Tensor& map, char as) {
        std::vector<int32_t> words(static_cast<size_t>(map.numel()));
        ctx.gpu->download(words.data(), map);
        for (int64_t row = 0; row < sheets * plan.row_blocks; ++row)
            for (int64_t c = 0; c < plan.column_blocks; ++c)
                if (static_cast<uint32_t>(words[static_cast<size_t>(row * map.size(2) + c / 32)]) >> c % 32 & 1)
                    classes[static_cast<size_t>(row * plan.column_blocks + c)] = as;
    };
    mark(plan.gpu.row_active, full);
    mark(plan.gpu.row_partial, partial);
    return classes;
}

std::string plan_picture(const Context& ctx, const ColumnMask& mask, const TilePlan& plan, int64_t width) {
    require(width >= 1, "a picture {} characters wide, expected at least 1", width);
    const std::string classes = tile_classes(ctx, plan);
    const auto count = [&](char c) { return static_cast<int64_t>(std::ranges::count(classes, c)); };
    const int64_t tiles = std::ssize(classes), active = tiles - count(empty);
    std::string text = fmt::format(
        "{} queries x {} keys in tiles of {} x {}: {} tiles, {} active ({:.1f} %), {} full and {} partial\n"
        "{:.1f} % of all (query, key) pairs are visible\n",
        mask.rows, mask.columns, plan.tile_rows, plan.tile_columns, tiles, active, percent(active, tiles), count(full),
        count(partial), percent(count_visible_pairs(mask), mask.batch * mask.heads * mask.rows * mask.columns));

    const int64_t n = std::max<int64_t>(1, blocks_of(std::max(plan.row_blocks, plan.column_blocks), width));
    if (n > 1) text += fmt::format("each character stands for {} x {} tiles\n", n, n);
    constexpr int64_t apart = 8;  // characters between two numbers of column blocks
    std::string numbers(6, ' ');
    for (int64_t c = 0; c < plan.column_blocks; c += n * apart) numbers += fmt::format("{:<{}}", c, apart);
    numbers.erase(numbers.find_last_not_of(' ') + 1);
    const auto sheet_tiles = static_cast<size_t>(plan.row_blocks * plan.column_blocks);
    for (int64_t sheet = 0; sheet < plan.batch * plan.heads; ++sheet) {
        if (plan.batch * plan.heads > 1)
            text += fmt::format("batch {}, mask head {}\n", sheet / plan.heads, sheet % plan.heads);
        text += numbers + "\n";
        const std::string_view of_sheet =
            std::string_view(classes).substr(static_cast<size_t>(sheet) * sheet_tiles, sheet_tiles);
        for (int64_t r = 0; r < plan.row_blocks; r += n) {
            text += fmt::format("{:>5} ", r);
            for (int64_t c = 0; c < plan.column_blocks; c += n) text += merged(of_sheet, plan, r, c, n);
            text += '\n';
        }
    }
    return text;
}

}  // namespace colonnade
