#include "attention/tile_plan.h"

#include <numeric>
#include <utility>

#include "attention/cuda_kernels.h"
#include "attention/hopper/backward_schedule.h"
#include "attention/position_runs.h"

namespace colonnade {
namespace {

/// The maximal ranges of rows that see a column: the complement of its hidden ranges, the causal rule, and what is past
/// the window of the positions.
class VisibleRows {
  public:
    explicit VisibleRows(const ColumnMask& mask) : mask_(mask) {
        const auto rows = static_cast<size_t>(mask.rows);
        const std::span<const int32_t> positions = mask.row_positions;
        for (int64_t b = 0; b < mask.batch && mask.position_window > 0; ++b)
            runs_.emplace_back(positions.subspan(static_cast<size_t>(b) * rows, rows));
    }

    /// Calls visit(RowRange) for the ranges of a column in ascending order.
    template <typename Visit>
    void visit(int64_t b, int64_t h, int64_t column, Visit&& visit) const {
        const auto x = mask_.bounds(b, h, column);
        const auto end = static_cast<int32_t>(mask_.rows);
        int32_t row = mask_.causal_rows(column);
        for (const RowRange hidden : {RowRange{x.uts, x.ute}, RowRange{x.lts, x.lte}, RowRange{end, end + 1}}) {
            if (hidden.begin == hidden.end) continue;
            if (row < hidden.begin) within_window({row, hidden.begin}, b, column, visit);
            row = std::max(row, hidden.end);
        }
    }

  private:
    template <typename Visit>
    void within_window(RowRange rows, int64_t b, int64_t column, Visit&& visit) const {
        if (runs_.empty()) return visit(rows);
        const int64_t limit = mask_.row_positions[static_cast<size_t>(b * mask_.rows + column)] + mask_.position_window;
        RowRange joined{rows.begin, rows.begin};
        runs_[static_cast<size_t>(b)].divide(rows.begin, rows.end, limit, [&](RowRange within, RowRange) {
            if (within.begin == within.end) return;
            if (within.begin > joined.end) {
                if (joined.begin < joined.end) visit(joined);
                joined.begin = within.begin;
            }
            joined.end = within.end;
        });
        if (joined.begin < joined.end) visit(joined);
    }

    const ColumnMask& mask_;
    std::vector<PositionRuns> runs_;  ///< of each row of the batch, if there are positions
};

/// Counts for each row block, stored as differences from the previous block: `touched`, visible ranges of the columns
/// of one column block that reach into the row block, and `covered`, columns that all its rows see. The ranges of a
/// column do not touch, so at most one of them covers a row block.
struct Coverage {
    std::vector<int32_t> touched, covered;
    explicit Coverage(int64_t row_blocks) : touched(static_cast<size_t>(row_blocks) + 1), covered(touched.size()) {}
};

/// Active row blocks of one column block, in O(columns of the block + row blocks between its first and last visible
/// row).
std::vector<CpuTilePlan::Tile> tiles_of_column_block(const ColumnMask& mask, const VisibleRows& visible,
                                                     const TilePlan& plan, int64_t b, int64_t h, int64_t block,
                                                     Coverage& cover, int64_t& pairs) {
    const int64_t begin = block * plan.tile_columns, end = std::min(begin + plan.tile_columns, mask.columns);
    auto first = static_cast<size_t>(plan.row_blocks), last = size_t{0};
    for (int64_t j = begin; j < end; ++j) {
        visible.visit(b, h, j, [&](RowRange rows) {
            pairs += rows.end - rows.begin;
            const auto touch = static_cast<size_t>(rows.begin / plan.tile_rows);
            const auto leave = static_cast<size_t>((rows.end - 1) / plan.tile_rows) + 1;
            ++cover.touched[touch], --cover.touched[leave];
            const auto whole = static_cast<size_t>((rows.begin + plan.tile_rows - 1) / plan.tile_rows);
            const auto whole_end = rows.end == mask.rows ? leave : static_cast<size_t>(rows.end / plan.tile_rows);
            if (whole < whole_end) ++cover.covered[whole], --cover.covered[whole_end];
            first = std::min(first, touch), last = std::max(last, leave);
        });
    }
    std::vector<CpuTilePlan::Tile> tiles;
    int32_t touched = 0, covered = 0;
    for (size_t r = first; r <= last && first < last; ++r) {
        touched += std::exchange(cover.touched[r], 0);
        covered += std::exchange(cover.covered[r], 0);
        if (touched > 0) tiles.push_back({static_cast<int32_t>(r), covered < end - begin});
    }
    return tiles;
}

/// Fills by_row from by_column. Lists of by_row come out ascending, because column blocks are visited in that order.
void transpose(TilePlan& plan) {
    CpuTilePlan& lists = plan.cpu;
    const auto sheets = static_cast<size_t>(plan.batch * plan.heads);
    const auto row_blocks = static_cast<size_t>(plan.row_blocks),
               column_blocks = static_cast<size_t>(plan.column_blocks);
    lists.by_row_begin.assign(sheets * row_blocks + 1, 0);
    const auto for_each = [&](auto&& visit) {
        for (size_t s = 0; s < sheets; ++s)
            for (size_t c = 0; c < column_blocks; ++c)
                for (int64_t t = lists.by_column_begin[s * column_blocks + c];
                     t < lists.by_column_begin[s * column_blocks + c + 1]; ++t) {
                    const auto tile = lists.by_column[static_cast<size_t>(t)];
                    visit(s * row_blocks + static_cast<size_t>(tile.index),
                          CpuTilePlan::Tile{static_cast<int32_t>(c), tile.partial});
                }
    };
    for_each([&](size_t row, CpuTilePlan::Tile) { ++lists.by_row_begin[row + 1]; });
    std::partial_sum(lists.by_row_begin.begin(), lists.by_row_begin.end(), lists.by_row_begin.begin());
    lists.by_row.resize(lists.by_column.size());
    auto next = lists.by_row_begin;
    for_each([&](size_t row, CpuTilePlan::Tile tile) { lists.by_row[static_cast<size_t>(next[row]++)] = tile; });
}

int64_t blocks_of(int64_t n, int64_t tile) {
    return (n + tile - 1) / tile;
}

std::vector<int32_t> longest_first(const std::vector<int64_t>& begin) {
    std::vector<int32_t> order(begin.size() - 1);
    std::iota(order.begin(), order.end(), 0);
    const auto length = [&](int32_t i) { return begin[static_cast<size_t>(i) + 1] - begin[static_cast<size_t>(i)]; };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return length(a) > length(b); });
    return order;
}

}  // namespace

int64_t CpuTilePlan::partial_tiles() const {
    return std::count_if(by_row.begin(), by_row.end(), [](Tile tile) { return tile.partial; });
}

TilePlan make_tile_plan(const ColumnMask& mask, int64_t tile_rows, int64_t tile_columns) {
    require(tile_rows > 0 && tile_columns > 0, "tiles of {} x {}", tile_rows, tile_columns);
    mask.validate();
    TilePlan plan{.tile_rows = tile_rows,
                  .tile_columns = tile_columns,
                  .batch = mask.batch,
                  .heads = mask.heads,
                  .row_blocks = blocks_of(mask.rows, tile_rows),
                  .column_blocks = blocks_of(mask.columns, tile_columns)};
    const int64_t lists = plan.batch * plan.heads * plan.column_blocks;
    std::vector<std::vector<CpuTilePlan::Tile>> tiles(static_cast<size_t>(lists));
    const VisibleRows visible(mask);
    int64_t pairs = 0;
#pragma omp parallel reduction(+ : pairs) if (lists > 64)
    {
        Coverage cover(plan.row_blocks);
#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < lists; ++i) {
            const int64_t sheet = i / plan.column_blocks;
            tiles[static_cast<size_t>(i)] = tiles_of_column_block(
                mask, visible, plan, sheet / plan.heads, sheet % plan.heads, i % plan.column_blocks, cover, pairs);
        }
    }
    CpuTilePlan& cpu = plan.cpu;
    cpu.visible_pairs = pairs;
    cpu.by_column_begin.push_back(0);
    for (const auto& list : tiles) {
        cpu.by_column.insert(cpu.by_column.end(), list.begin(), list.end());
        cpu.by_column_begin.push_back(static_cast<int64_t>(cpu.by_column.size()));
    }
    transpose(plan);
    cpu.row_order = longest_first(cpu.by_row_begin);
    cpu.column_order = longest_first(cpu.by_column_begin);
    return plan;
}

int64_t count_visible_pairs(const ColumnMask& mask) {
    const VisibleRows visible(mask);
    int64_t pairs = 0;
#pragma omp parallel for reduction(+ : pairs) if (mask.columns > 4096)
    for (int64_t j = 0; j < mask.columns; ++j)
        for (int64_t sheet = 0; sheet < mask.batch * mask.heads; ++sheet)
            visible.visit(sheet / mask.heads, sheet % mask.heads, j,
                          [&](RowRange rows) { pairs += rows.end - rows.begin; });
    return pairs;
}

namespace {

/// The parts of GpuTilePlan::scratch, one after the other: the mask's vectors, the extremes of each column block, counts
/// of active tiles per group of blocks, and extremes of the positions of each block of rows.
struct PlanScratch {
    int64_t vector, extremes, counts, least, most;  ///< i32 elements, rounded up to the arena's alignment
    PlanScratch(int64_t sheets, int64_t rows, int64_t columns, int64_t positions)
        : vector(line(sheets * columns)),
          extremes(
              line(sheets * blocks_of(columns, 2 * GpuTilePlan::tile) * 2 * cuda::TilePlanBuild::extremes_of_block)),
          counts(line(sheets * (blocks_of(rows, 2 * GpuTilePlan::tile) + blocks_of(columns, 2 * GpuTilePlan::tile) +
                                blocks_of(rows, 3 * GpuTilePlan::tile)))),
          least(line(positions * blocks_of(columns, 2 * GpuTilePlan::tile) * 2 * GpuTilePlan::tile)),
          most(line(positions * blocks_of(columns, 2 * GpuTilePlan::tile) * 2)) {}
    int64_t bytes() const { return (4 * vector + extremes + counts + least + most) * 4; }

  private:
    static int64_t line(int64_t elements) { return blocks_of(elements, Arena::alignment / 4) * (Arena::alignment / 4); }
};

}  // namespace

GpuTilePlan GpuTilePlan::lay_out(Arena& arena, int64_t sheets, int64_t rows, int64_t columns, int64_t positions) {
    if (arena.device() == Device::cpu) return {};
    const int64_t row_blocks = blocks_of(rows, tile), column_blocks = blocks_of(columns, tile);
    const auto ints = [&](std::initializer_list<int64_t> shape) {
        return arena.tensor("tile plans", DType::i32, shape);
    };
    GpuTilePlan plan;
    plan.bounds = ints({sheets, blocks_of(columns, 2 * tile) * 2 * tile, 4});
    if (positions > 0) plan.positions = ints({positions, plan.bounds.size(1)});
    plan.row_active = ints({sheets, row_blocks, blocks_of(column_blocks, 32)});
    plan.row_partial = ints({sheets, row_blocks, blocks_of(column_blocks, 32)});
    plan.column_active = ints({sheets, column_blocks, blocks_of(row_blocks, 32)});
    plan.column_partial = ints({sheets, column_blocks, blocks_of(row_blocks, 32)});
    plan.row_order = ints({sheets * blocks_of(row_blocks, 2)});
    plan.column_order = ints({sheets * blocks_of(column_blocks, 2)});
    plan.hopper.row_triple_order = ints({sheets * blocks_of(row_blocks, 3)});
    plan.hopper.column_lags = arena.tensor("tile plans", DType::i64, {2});
    plan.hopper.last_column_order = ints({blocks_of(column_blocks, 2)});
    plan.hopper.longest_columns = ints({hopper::most_cut_entries});
    plan.scratch = arena.tensor("tile plans", DType::u8, {PlanScratch(sheets, rows, columns, positions).bytes()});
    return plan;
}

namespace {

/// Writes the positions of each row of the batch, and zeros for the columns of padding.
void upload_positions(Gpu& gpu, const Tensor& to, const ColumnMask& mask) {
    gpu.upload(to, [&](void* out, int64_t first, int64_t count) {
        auto* position = static_cast<int32_t*>(out);
        for (int64_t at = first; at < first + count; ++at) {
            const int64_t b = at / to.size(1), row = at % to.size(1);
            *position++ = row < mask.rows ? mask.row_positions[static_cast<size_t>(b * mask.rows + row)] : 0;
        }
    });
}

/// The parts of the scratch of a plan for a mask of these sizes.
PlanScratch scratch_of(const GpuTilePlan& memory, const ColumnMask& sizes) {
    const int64_t positions = memory.positions.rank == 2 ? memory.positions.size(0) : 0;
    return {sizes.batch * sizes.heads, sizes.rows, sizes.columns, positions};
}

}  // namespace

TilePlan gpu_tile_plan_in(const GpuTilePlan& memory, const ColumnMask& sizes) {
    constexpr int64_t tile = GpuTilePlan::tile;
    TilePlan plan{.tile_rows = tile,
                  .tile_columns = tile,
                  .batch = sizes.batch,
                  .heads = sizes.heads,
                  .row_blocks = blocks_of(sizes.rows, tile),
                  .column_blocks = blocks_of(sizes.columns, tile),
                  .gpu = memory};
    const int64_t sheets = sizes.batch * sizes.heads;
    const bool fits = memory.bounds.rank == 3 && memory.bounds.size(0) == sheets &&
                      memory.bounds.size(1) == blocks_of(sizes.columns, 2 * tile) * 2 * tile &&
                      memory.row_active.size(1) == plan.row_blocks &&
                      memory.column_active.size(1) == plan.column_blocks && memory.scratch.device == Device::cuda &&
                      memory.scratch.numel() == scratch_of(memory, sizes).bytes();
    require(fits, "tile plan: memory with bounds {} and row maps {} does not fit a mask of {} sheets, {} x {}",
            describe(memory.bounds), describe(memory.row_active), sheets, sizes.rows, sizes.columns);
    const bool placed = memory.positions.rank == 2 && memory.positions.size(0) == sizes.batch;
    require(sizes.position_window == 0 || placed, "tile plan: memory without room for the positions of {} rows",
            sizes.batch);
    return plan;
}

TilePlan make_gpu_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& sizes,
                            const GpuColumns& columns) {
    require(ctx.device == Device::cuda && ctx.gpu, "tile plan: a plan of a GPU for a context on {}",
            name_of(ctx.device));
    const TilePlan plan = gpu_tile_plan_in(memory, sizes);
    const PlanScratch scratch = scratch_of(memory, sizes);
    int64_t used = 4 * scratch.vector;
    const auto take = [&](int64_t elements) {
        auto* data = memory.scratch.as<uint8_t>() + used * 4;
        used += elements;
        return Tensor(data, DType::i32, {elements}, Device::cuda);
    };
    cuda::TilePlanBuild build{.plan = memory,
                              .lts = columns.lts,
                              .lte = columns.lte,
                              .uts = columns.uts,
                              .ute = columns.ute,
                              .heads = sizes.heads,
                              .rows = sizes.rows,
                              .columns = sizes.columns,
                              .causal = sizes.causal,
                              .window = sizes.position_window};
    build.extremes = take(scratch.extremes);
    build.counts = take(scratch.counts);
    if (sizes.position_window > 0) {
        build.least_positions = take(scratch.least);
        build.most_positions = take(scratch.most);
    }
    cuda::build_tile_plan(ctx, build);
    return plan;
}

TilePlan make_gpu_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask) {
    require(ctx.device == Device::cuda && ctx.gpu, "tile plan: a plan of a GPU for a context on {}",
            name_of(ctx.device));
    mask.validate();
    gpu_tile_plan_in(memory, mask);  // checks the size of its scratch
    const int64_t vector = scratch_of(memory, mask).vector;
    int64_t used = 0;
    const auto uploaded = [&](const std::vector<int32_t>& values) {
        const Tensor on_gpu(memory.scratch.as<uint8_t>() + used * 4, DType::i32, {mask.batch, mask.heads, mask.columns},
                            Device::cuda);
        used += vector;
        if (values.empty()) return Tensor();
        ctx.gpu->upload(on_gpu, values.data());
        return on_gpu;
    };
    const GpuColumns columns{
        .lts = uploaded(mask.lts), .lte = uploaded(mask.lte), .uts = uploaded(mask.uts), .ute = uploaded(mask.ute)};
    if (mask.position_window > 0) upload_positions(*ctx.gpu, memory.positions, mask);
    return make_gpu_tile_plan(ctx, memory, mask, columns);
}

TilePlan make_tile_plan(const Context& ctx, const GpuTilePlan& memory, const ColumnMask& mask) {
    if (ctx.device == Device::cuda) return make_gpu_tile_plan(ctx, memory, mask);
    TilePlan plan = make_tile_plan(mask);
    // Short documents fill little of a large tile. Small tiles then save more than they lose in the matmuls: attention
    // falls from 10 to 6 % of the time of a step in configs/from_scratch.yaml.
    const int64_t tile_pairs = plan.cpu.active_tiles() * plan.tile_rows * plan.tile_columns;
    if (5 * plan.cpu.visible_pairs < 2 * tile_pairs) plan = make_tile_plan(mask, 32, 32);
    return plan;
}

}  // namespace colonnade
