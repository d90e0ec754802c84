// Four kernels make the plan of a mask: bounds and extremes of every column block; the class of every tile, 32 x 32
// tiles per warp; the schedules; the lags of the schedule whose items wait for each other. For 128K columns they read
// at most 2 MB, test 4M tiles and write 2 MB of maps. All sums are sums of integers.

#include <climits>

#include "attention/cuda_kernels.h"
#include "attention/hopper/backward_schedule.h"
#include "attention/tile_columns.h"
#include "engine/device/gpu.cuh"

namespace colonnade::cuda {
namespace {

constexpr int tile = GpuTilePlan::tile, warps_per_block = 8;
constexpr unsigned all_lanes = ~0u;

struct Vectors {
    const int32_t *lts, *lte, *uts, *ute;  ///< null if absent
};

/// Extremes over the columns of one block. Empty ranges are [INT_MAX, INT_MIN): they reach no row and begin after all
/// rows.
struct alignas(16) Extremes {
    int32_t lts_min, lts_max, lte_min, lte_max, uts_min, uts_max, ute_min, ute_max;
};
static_assert(sizeof(Extremes) == TilePlanBuild::extremes_of_block * sizeof(int32_t));

/// Sizes of a mask and its plan; a block is 64 rows or columns.
struct Size {
    int64_t sheets;
    int heads;  ///< mask heads: sheets of a row of the batch
    int rows, columns;
    int row_blocks, column_blocks;  ///< tiles
    int padded_blocks;              ///< column blocks, rounded up to whole pairs
    int row_words, column_words;    ///< words of 32 tiles
    int row_pairs, column_pairs, row_triples;
    bool causal;

    /// Number n of rows [0, n) for which `column` is in the future.
    __device__ int causal_rows(int64_t column) const {
        const int64_t n = column - (columns - rows);
        return causal ? static_cast<int>(min(max(n, int64_t{0}), static_cast<int64_t>(rows))) : 0;
    }
};

/// A window of positions, or nulls. Padded columns are 64 * padded_blocks.
struct Window {
    const int32_t* positions;  ///< [batch, padded columns]
    int32_t* least;            ///< [batch, padded columns]: least position of the rows of a block up to this one
    int32_t* most;             ///< [batch, padded blocks]: greatest position of the rows of a block
    int32_t size;

    __device__ explicit operator bool() const { return positions != nullptr; }
};

struct Maps {
    uint32_t *row_active, *row_partial, *column_active, *column_partial;
    int32_t* row_counts;     ///< active tiles per pair of row blocks
    int32_t* column_counts;  ///< per pair of column blocks: row blocks with an active tile
    int32_t* triple_counts;  ///< active tiles per three row blocks
};

/// One warp writes the bounds of a column block, two columns per lane, and their extremes.
__global__ void __launch_bounds__(32 * warps_per_block)
    make_bounds(int4* bounds, Extremes* extremes, const Vectors vectors, const Size size) {
    const int64_t block = static_cast<int64_t>(blockIdx.x) * warps_per_block + threadIdx.x / 32;
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (block >= size.sheets * size.padded_blocks) return;
    const int64_t sheet = block / size.padded_blocks, first = block % size.padded_blocks * tile;
    Extremes e{INT_MAX, INT_MIN, INT_MAX, INT_MIN, INT_MAX, INT_MIN, INT_MAX, INT_MIN};
    for (int half = 0; half < 2; ++half) {
        const int64_t column = first + 32 * half + lane;
        int4 x = make_int4(INT_MIN, INT_MAX, INT_MAX, INT_MIN);  // padding: hidden from every row
        if (column < size.columns) {
            const int64_t at = sheet * size.columns + column;
            x.x = vectors.lts ? vectors.lts[at] : size.rows;
            x.y = vectors.lte ? vectors.lte[at] : size.rows;
            x.z = vectors.uts ? vectors.uts[at] : 0;
            x.w = vectors.ute ? vectors.ute[at] : 0;
            if (x.x >= x.y) x.x = INT_MAX, x.y = INT_MIN;
            if (x.z >= x.w) x.z = INT_MAX, x.w = INT_MIN;
            // If all rows before a range are hidden as well, it may begin at 0: the extremes of columns along a
            // diagonal are then close together.
            const int future = size.causal_rows(column), uts = x.z <= future ? 0 : x.z;
            const int lts = x.x <= (uts == 0 ? max(future, x.w) : future) ? 0 : x.x;
            e.lts_min = min(e.lts_min, lts), e.lts_max = max(e.lts_max, lts);
            e.lte_min = min(e.lte_min, x.y), e.lte_max = max(e.lte_max, x.y);
            e.uts_min = min(e.uts_min, uts), e.uts_max = max(e.uts_max, uts);
            e.ute_min = min(e.ute_min, x.w), e.ute_max = max(e.ute_max, x.w);
        }
        bounds[block * tile + 32 * half + lane] = x;
    }
    e = {__reduce_min_sync(all_lanes, e.lts_min), __reduce_max_sync(all_lanes, e.lts_max),
         __reduce_min_sync(all_lanes, e.lte_min), __reduce_max_sync(all_lanes, e.lte_max),
         __reduce_min_sync(all_lanes, e.uts_min), __reduce_max_sync(all_lanes, e.uts_max),
         __reduce_min_sync(all_lanes, e.ute_min), __reduce_max_sync(all_lanes, e.ute_max)};
    if (lane == 0) extremes[block] = e;
}

/// One warp writes the extremes of the positions of a block of rows. The rows of padding have none.
__global__ void __launch_bounds__(32 * warps_per_block)
    make_position_extremes(const Window window, int64_t blocks, const Size size) {
    const int64_t block = static_cast<int64_t>(blockIdx.x) * warps_per_block + threadIdx.x / 32;
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (block >= blocks) return;
    const int first = static_cast<int>(block % size.padded_blocks) * tile;
    int least_before = INT_MAX, most = INT_MIN;
    for (int half = 0; half < 2; ++half) {
        const int64_t at = block * tile + 32 * half + lane;
        const bool exists = first + 32 * half + lane < size.rows;
        const int position = window.positions[at];
        int least = exists ? position : INT_MAX;
        for (int apart = 1; apart < 32; apart *= 2) {
            const int before = __shfl_up_sync(all_lanes, least, apart);
            if (lane >= apart) least = min(least, before);
        }
        least = min(least, least_before);
        window.least[at] = least;
        least_before = __shfl_sync(all_lanes, least, 31);
        most = max(most, exists ? position : INT_MIN);
    }
    most = __reduce_max_sync(all_lanes, most);
    if (lane == 0) window.most[block] = most;
}

/// The columns of a block: extremes, and the causal rule. The block's columns are in the future of rows [0, n) with n
/// from causal_min to causal_max.
struct ColumnBlock {
    Extremes of;
    int causal_min, causal_max;
    bool padded;

    __device__ ColumnBlock(const Extremes& e, int block, const Size& size) : of(e) {
        const int64_t first = static_cast<int64_t>(block) * tile,
                      last = min(first + tile, static_cast<int64_t>(size.columns)) - 1;
        causal_min = size.causal_rows(first), causal_max = size.causal_rows(last);
        padded = first + tile > size.columns;
    }

    /// True if all columns hide the rows [begin, end): [begin, covered) is hidden in all of them, step by step.
    __device__ bool hides(int begin, int end) const {
        int covered = max(begin, causal_min);
        if (of.uts_max <= covered) covered = max(covered, of.ute_min);
        if (of.lts_max <= covered) covered = max(covered, of.lte_min);
        return covered >= end;
    }
    /// True if some column may hide some of these rows.
    __device__ bool touches(int begin, int end) const {
        return padded || causal_max > begin || (of.lts_min < end && of.lte_max > begin) ||
               (of.uts_min < end && of.ute_max > begin);
    }
};

/// What a window of positions adds to the class of a tile. All lanes of a warp have the same block of rows and a block
/// of columns each.
class WindowOfTiles {
  public:
    __device__ WindowOfTiles(const Window& window, const int4* bounds, int64_t sheet, int column_block, bool exists,
                             const Size& size)
        : window_(window), bounds_(bounds), size_(size), sheet_(sheet), first_word_block_(column_block & ~31) {
        const int64_t block = batch_blocks() + column_block;
        if (!exists) return;
        const int last = min((column_block + 1) * tile, size.columns) - 1;
        least_ = window.least[batch_blocks() * tile + last], most_ = window.most[block];
    }

    __device__ void classify(int row_block, int begin, int end, bool& active, bool& partial) const {
        const int32_t* least = window_.least + batch_blocks() * tile + begin;
        const int row_least = least[end - 1 - begin], row_most = window_.most[batch_blocks() + row_block];
        active = active && row_least - most_ < window_.size;
        const bool reaches = active && row_most - least_ >= window_.size;
        for (unsigned rest = __ballot_sync(all_lanes, reaches); rest != 0; rest &= rest - 1) {
            const int from = __ffs(static_cast<int>(rest)) - 1;
            const bool hidden = hides(first_word_block_ + from, begin, end, least);
            if (hidden && static_cast<int>(threadIdx.x % 32) == from) active = false;
        }
        partial = active && (partial || reaches);
    }

  private:
    /// Index of the first block of the row of the batch.
    __device__ int64_t batch_blocks() const { return sheet_ / size_.heads * size_.padded_blocks; }
    /// Whether every column of a block hides these rows; two columns per lane.
    __device__ bool hides(int column_block, int begin, int end, const int32_t* least) const {
        bool hidden = true;
        for (int half = 0; half < 2; ++half) {
            const int column = column_block * tile + 32 * half + static_cast<int>(threadIdx.x % 32);
            if (column >= size_.columns) continue;
            const int4 x = bounds_[sheet_ * size_.padded_blocks * tile + column];
            const TileColumn of{x.x,
                                x.y,
                                x.z,
                                x.w,
                                size_.causal_rows(column),
                                window_.positions[batch_blocks() * tile + column] + window_.size};
            hidden = hidden && of.hides(begin, end, least);
        }
        return __all_sync(all_lanes, hidden);
    }

    const Window& window_;
    const int4* bounds_;
    const Size& size_;
    const int64_t sheet_;
    const int first_word_block_;
    int least_ = 0, most_ = 0;  ///< positions of the lane's columns
};

/// One warp tests 32 x 32 tiles. A lane has a column block and walks down the row blocks. Ballots are words of the row
/// maps; the bits that a lane collects are a word of the column maps.
__global__ void __launch_bounds__(32 * warps_per_block)
    classify_tiles(const Maps maps, const Extremes* extremes, const int4* bounds, const Window window,
                   const Size size) {
    const int64_t warp = static_cast<int64_t>(blockIdx.x) * warps_per_block + threadIdx.x / 32;
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64_t words = static_cast<int64_t>(size.row_words) * size.column_words;
    if (warp >= size.sheets * words) return;
    const int64_t sheet = warp / words;
    const int row_word = static_cast<int>(warp % words / size.column_words),
              column_word = static_cast<int>(warp % words % size.column_words);
    const int column_block = 32 * column_word + lane;
    const bool exists = column_block < size.column_blocks;
    const ColumnBlock columns(extremes[sheet * size.padded_blocks + (exists ? column_block : 0)],
                              exists ? column_block : 0, size);
    const WindowOfTiles past(window, bounds, sheet, column_block, window && exists, size);
    uint32_t of_row_active = 0, of_row_partial = 0, of_column_active = 0, of_column_partial = 0;
    for (int k = 0; k < 32; ++k) {
        const int row_block = 32 * row_word + k, begin = row_block * tile, end = min(begin + tile, size.rows);
        bool active = exists && row_block < size.row_blocks && !columns.hides(begin, end);
        bool partial = active && columns.touches(begin, end);
        if (window && row_block < size.row_blocks) past.classify(row_block, begin, end, active, partial);
        const uint32_t row_active = __ballot_sync(all_lanes, active), row_partial = __ballot_sync(all_lanes, partial);
        if (lane == k) of_row_active = row_active, of_row_partial = row_partial;
        of_column_active |= static_cast<uint32_t>(active) << k;
        of_column_partial |= static_cast<uint32_t>(partial) << k;
    }
    const int row_block = 32 * row_word + lane;
    if (row_block < size.row_blocks) {
        const int64_t at = (sheet * size.row_blocks + row_block) * size.column_words + column_word;
        maps.row_active[at] = of_row_active;
        maps.row_partial[at] = of_row_partial;
    }
    if (exists) {
        const int64_t at = (sheet * size.column_blocks + column_block) * size.row_words + row_word;
        maps.column_active[at] = of_column_active;
        maps.column_partial[at] = of_column_partial;
    }
    // A word has an even number of blocks, so both blocks of a pair are in one warp. The even lane adds for both.
    const int rows_active = __popc(of_row_active);
    const int of_row_pair = rows_active + __shfl_xor_sync(all_lanes, rows_active, 1),
              of_column_pair = __popc(of_column_active | __shfl_xor_sync(all_lanes, of_column_active, 1));
    if (rows_active > 0) atomicAdd(maps.triple_counts + sheet * size.row_triples + row_block / 3, rows_active);
    if (lane % 2 != 0) return;
    if (of_row_pair > 0) atomicAdd(maps.row_counts + sheet * size.row_pairs + row_block / 2, of_row_pair);
    if (of_column_pair > 0)
        atomicAdd(maps.column_counts + sheet * size.column_pairs + column_block / 2, of_column_pair);
}

struct Schedule {
    int32_t* order;
    const int32_t* counts;
    int items;
    int32_t* longest;  ///< counts of the first items of the order, or null
};

struct Schedules {
    Schedule of[4];
};

/// Longest first, ties ascending; blockIdx.y selects the schedule. A warp finds the position of one item by counting
/// the items before it: O(items^2), which takes less time than the launches of a sort for some thousand items.
__global__ void __launch_bounds__(32 * warps_per_block) make_orders(const Schedules schedules) {
    const Schedule schedule = schedules.of[blockIdx.y];
    const int64_t item = static_cast<int64_t>(blockIdx.x) * warps_per_block + threadIdx.x / 32;
    if (item >= schedule.items) return;
    const int mine = schedule.counts[item], lane = static_cast<int>(threadIdx.x % 32);
    int before = 0;
    for (int other = lane; other < schedule.items; other += 32) {
        const int count = schedule.counts[other];
        before += count > mine || (count == mine && other < item);
    }
    before = __reduce_add_sync(all_lanes, before);
    if (lane != 0) return;
    schedule.order[before] = static_cast<int32_t>(item);
    if (schedule.longest && before < hopper::most_cut_entries) schedule.longest[before] = mine;
}

/// One warp compares a pair of column blocks with the next pair, one word of their maps per lane.
__global__ void __launch_bounds__(32 * warps_per_block)
    sum_lags(unsigned long long* lags, const uint32_t* column_active, const Size size) {
    const int64_t item = static_cast<int64_t>(blockIdx.x) * warps_per_block + threadIdx.x / 32;
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (item >= size.sheets * size.column_pairs) return;
    const uint32_t* of_sheet = column_active + item / size.column_pairs * size.column_blocks * size.row_words;
    const int first_block = static_cast<int>(item % size.column_pairs) * 2;
    const auto rows_of = [&](int block, int w) {
        uint32_t rows = 0;
        for (int b = block; b < min(block + 2, size.column_blocks) && w < size.row_words; ++b)
            rows |= of_sheet[static_cast<int64_t>(b) * size.row_words + w];
        return rows;
    };
    int slots = 0, lag = 0, ahead = 0;
    for (int first = 0; first < size.row_words; first += 32) {
        const uint32_t own = rows_of(first_block, first + lane), next = rows_of(first_block + 2, first + lane);
        slots += __popc(own);
        const int more = __popc(next) - __popc(own);
        int with_word = more;  // sum over the lanes up to this one
        for (int apart = 1; apart < 32; apart *= 2) {
            const int before = __shfl_up_sync(all_lanes, with_word, apart);
            if (lane >= apart) with_word += before;
        }
        lag = max(lag, hopper::lag_in_word(own, next, ahead + with_word - more));
        ahead += __shfl_sync(all_lanes, with_word, 31);
    }
    slots = __reduce_add_sync(all_lanes, slots), lag = __reduce_max_sync(all_lanes, lag);
    if (lane != 0) return;
    atomicAdd(lags, static_cast<unsigned long long>(lag));
    atomicAdd(lags + 1, static_cast<unsigned long long>(slots));
}

unsigned grid_of(int64_t warps) {
    return static_cast<unsigned>((warps + warps_per_block - 1) / warps_per_block);
}

uint32_t* words_of(const Tensor& map) {
    return reinterpret_cast<uint32_t*>(map.as<int32_t>());
}

}  // namespace

void build_tile_plan(const Context& ctx, const TilePlanBuild& args) {
    const GpuTilePlan& plan = args.plan;
    Size size{};
    size.sheets = plan.bounds.size(0);
    size.heads = static_cast<int>(args.heads);
    size.rows = static_cast<int>(args.rows), size.columns = static_cast<int>(args.columns);
    size.row_blocks = static_cast<int>(plan.row_active.size(1));
    size.column_blocks = static_cast<int>(plan.column_active.size(1));
    size.padded_blocks = static_cast<int>(plan.bounds.size(1) / tile);
    size.row_words = static_cast<int>(plan.column_active.size(2));
    size.column_words = static_cast<int>(plan.row_active.size(2));
    size.row_pairs = (size.row_blocks + 1) / 2, size.column_pairs = (size.column_blocks + 1) / 2;
    size.row_triples = (size.row_blocks + 2) / 3;
    size.causal = args.causal;

    const cudaStream_t stream = stream_of(ctx);
    constexpr int threads = 32 * warps_per_block;
    const auto pointer = [](const Tensor& vector) { return vector.empty() ? nullptr : vector.as<int32_t>(); };
    const Vectors vectors{pointer(args.lts), pointer(args.lte), pointer(args.uts), pointer(args.ute)};
    auto* bounds = reinterpret_cast<int4*>(plan.bounds.as<int32_t>());
    auto* extremes = reinterpret_cast<Extremes*>(args.extremes.as<int32_t>());
    int32_t* counts = args.counts.as<int32_t>();
    Window window{};
    const int64_t position_blocks = args.window > 0 ? size.sheets / size.heads * size.padded_blocks : 0;
    if (args.window > 0)
        window = {plan.positions.as<int32_t>(), args.least_positions.as<int32_t>(), args.most_positions.as<int32_t>(),
                  args.window};
    const Maps maps{words_of(plan.row_active),
                    words_of(plan.row_partial),
                    words_of(plan.column_active),
                    words_of(plan.column_partial),
                    counts,
                    counts + size.sheets * size.row_pairs,
                    counts + size.sheets * (size.row_pairs + size.column_pairs)};
    auto* lags = reinterpret_cast<unsigned long long*>(plan.hopper.column_lags.as<int64_t>());
    const auto schedule = [](const Tensor& order, const int32_t* of, int32_t* longest = nullptr) {
        return Schedule{order.as<int32_t>(), of, static_cast<int>(order.numel()), longest};
    };
    const Schedules schedules{
        {schedule(plan.row_order, maps.row_counts),
         schedule(plan.column_order, maps.column_counts, plan.hopper.longest_columns.as<int32_t>()),
         schedule(plan.hopper.row_triple_order, maps.triple_counts),
         schedule(plan.hopper.last_column_order,
                  maps.column_counts + std::max<int64_t>(size.sheets - 1, 0) * size.column_pairs)}};

    ctx.gpu->zero(args.counts);
    ctx.gpu->zero(plan.hopper.column_lags);
    ctx.gpu->zero(plan.hopper.longest_columns);
    const auto launched = [&](int64_t warps, auto&& launch) {
        if (warps == 0) return;
        launch(grid_of(warps));
        check_launch("tile plan");
    };
    launched(size.sheets * size.padded_blocks,
             [&](unsigned grid) { make_bounds<<<grid, threads, 0, stream>>>(bounds, extremes, vectors, size); });
    launched(position_blocks, [&](unsigned grid) {
        make_position_extremes<<<grid, threads, 0, stream>>>(window, position_blocks, size);
    });
    launched(size.sheets * size.row_words * size.column_words, [&](unsigned grid) {
        classify_tiles<<<grid, threads, 0, stream>>>(maps, extremes, bounds, window, size);
    });
    launched(std::max(schedules.of[0].items, schedules.of[1].items),  // there are fewer triples than pairs
             [&](unsigned grid) { make_orders<<<dim3(grid, 4), threads, 0, stream>>>(schedules); });
    launched(size.sheets * size.column_pairs,
             [&](unsigned grid) { sum_lags<<<grid, threads, 0, stream>>>(lags, maps.column_active, size); });
}

}  // namespace colonnade::cuda
