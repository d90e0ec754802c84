// The plan of a GPU compared with the exact one of the CPU.

#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <numeric>

#include "attention/mask_families.h"
#include "attention/tile_plan.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_mask.h"
#include "tests/support/random_walk.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

/// One bit map as downloaded: [sheets, blocks, words of the other blocks].
struct Map {
    int64_t blocks, words;
    std::vector<int32_t> data;
    bool operator==(const Map&) const = default;
    bool bit(int64_t sheet, int64_t block, int64_t other) const {
        const auto word = data[static_cast<size_t>((sheet * blocks + block) * words + other / 32)];
        return (static_cast<uint32_t>(word) >> (other % 32) & 1) != 0;
    }
    int64_t count(int64_t sheet, int64_t block) const {
        int64_t n = 0;
        for (int64_t w = 0; block < blocks && w < words; ++w)
            n += std::popcount(static_cast<uint32_t>(data[static_cast<size_t>((sheet * blocks + block) * words + w)]));
        return n;
    }
};

class GpuPlan {
  public:
    TilePlan plan;
    std::vector<int32_t> bounds, positions, row_order, column_order, row_triple_order, last_column_order,
        longest_columns;
    std::vector<int64_t> column_lags;
    Map row_active, row_partial, column_active, column_partial;

    enum class Vectors : uint8_t { on_host, on_device };
    /// Built in memory with old contents, from the mask or from its vectors in device memory.
    explicit GpuPlan(const ColumnMask& mask, Vectors vectors = Vectors::on_host) {
        Gpu& gpu = *test_gpu();
        Arena planned(Device::cuda);
        GpuTilePlan::lay_out(planned, mask);
        Arena arena(Device::cuda, planned.bytes());
        const GpuTilePlan memory = GpuTilePlan::lay_out(arena, mask);
        for (const Tensor& t :
             {memory.bounds, memory.row_active, memory.row_partial, memory.column_active, memory.column_partial,
              memory.row_order, memory.column_order, memory.hopper.row_triple_order, memory.hopper.column_lags,
              memory.hopper.last_column_order, memory.hopper.longest_columns, memory.positions, memory.scratch})
            if (!t.empty()) gpu.upload(t, std::vector<char>(t.bytes(), 0x5a).data());
        const Context ctx{.device = Device::cuda, .gpu = &gpu};
        if (vectors == Vectors::on_host) {
            plan = make_gpu_tile_plan(ctx, memory, mask);
        } else {
            Arena copies(Device::cuda, size_t{64} << 20);
            const auto copied = [&](const std::vector<int32_t>& vector) {
                if (vector.empty()) return Tensor();
                const Tensor t = copies.tensor("vectors", DType::i32, {mask.batch, mask.heads, mask.columns});
                gpu.upload(t, vector.data());
                return t;
            };
            const GpuColumns columns{copied(mask.lts), copied(mask.lte), copied(mask.uts), copied(mask.ute)};
            ColumnMask sizes = mask;
            sizes.vectors = MaskVectors::none;
            for (auto* vector : {&sizes.lts, &sizes.lte, &sizes.uts, &sizes.ute}) vector->clear();
            plan = make_gpu_tile_plan(ctx, memory, sizes, columns);
            gpu.synchronize();  // before the vectors are freed
        }
        const auto read = [&](const Tensor& t) {
            std::vector<int32_t> values(static_cast<size_t>(t.numel()));
            gpu.download(values.data(), t);
            return values;
        };
        const auto map = [&](const Tensor& t) { return Map{t.size(1), t.size(2), read(t)}; };
        if (mask.position_window > 0) positions = read(memory.positions);
        bounds = read(memory.bounds), row_order = read(memory.row_order), column_order = read(memory.column_order);
        row_triple_order = read(memory.hopper.row_triple_order);
        last_column_order = read(memory.hopper.last_column_order);
        longest_columns = read(memory.hopper.longest_columns);
        column_lags.resize(2);
        gpu.download(column_lags.data(), memory.hopper.column_lags);
        row_active = map(memory.row_active), row_partial = map(memory.row_partial);
        column_active = map(memory.column_active), column_partial = map(memory.column_partial);
    }
};

void expect_bounds(const ColumnMask& mask, const std::vector<int32_t>& found) {
    constexpr int32_t least = std::numeric_limits<int32_t>::min(), most = std::numeric_limits<int32_t>::max();
    std::vector<int32_t> expected;
    for (int64_t sheet = 0; sheet < mask.batch * mask.heads; ++sheet)
        for (int64_t j = 0; j < (mask.columns + 127) / 128 * 128; ++j) {
            ColumnMask::Bounds x{least, most, most, least};
            if (j < mask.columns) x = mask.bounds(sheet / mask.heads, sheet % mask.heads, j);
            if (x.lts == x.lte) x.lts = most, x.lte = least;
            if (x.uts == x.ute) x.uts = most, x.ute = least;
            expected.insert(expected.end(), {x.lts, x.lte, x.uts, x.ute});
        }
    EXPECT_EQ(found, expected);
}

void expect_positions(const ColumnMask& mask, const std::vector<int32_t>& found) {
    std::vector<int32_t> expected;
    for (int64_t b = 0; b < mask.batch && mask.position_window > 0; ++b)
        for (int64_t i = 0; i < (mask.rows + 127) / 128 * 128; ++i)
            expected.push_back(i < mask.rows ? mask.row_positions[static_cast<size_t>(b * mask.rows + i)] : 0);
    EXPECT_EQ(found, expected);
}

/// The longest groups of blocks come first, ties ascending. Returns the lengths in this order.
std::vector<int32_t> expect_group_order(const std::vector<int32_t>& order, int64_t sheets, int64_t groups,
                                        const std::function<int64_t(int64_t sheet, int64_t group)>& length) {
    std::vector<int32_t> expected(static_cast<size_t>(sheets * groups)), lengths;
    std::iota(expected.begin(), expected.end(), 0);
    for (const int32_t entry : expected)
        lengths.push_back(static_cast<int32_t>(length(entry / groups, entry % groups)));
    std::ranges::stable_sort(expected, std::greater(),
                             [&](int32_t entry) { return lengths[static_cast<size_t>(entry)]; });
    EXPECT_EQ(order, expected) << groups << " groups";
    std::ranges::stable_sort(lengths, std::greater());
    return lengths;
}

/// The orders of groups of row blocks, by active tiles, and of pairs of column blocks, by row blocks with one.
void expect_orders(const GpuPlan& gpu, int64_t sheets) {
    const auto tiles = [&](int64_t blocks) {
        return [&, blocks](int64_t sheet, int64_t group) {
            int64_t n = 0;
            for (int64_t block = group * blocks; block < (group + 1) * blocks; ++block)
                n += gpu.row_active.count(sheet, block);
            return n;
        };
    };
    const int64_t rows = gpu.row_active.blocks, columns = gpu.column_active.blocks;
    expect_group_order(gpu.row_order, sheets, (rows + 1) / 2, tiles(2));
    expect_group_order(gpu.row_triple_order, sheets, (rows + 2) / 3, tiles(3));
    auto lengths = expect_group_order(gpu.column_order, sheets, (columns + 1) / 2, [&](int64_t sheet, int64_t pair) {
        int64_t n = 0;
        for (int64_t row = 0; row < gpu.column_active.words * 32; ++row)
            n += gpu.column_active.bit(sheet, 2 * pair, row) ||
                 (2 * pair + 1 < columns && gpu.column_active.bit(sheet, 2 * pair + 1, row));
        return n;
    });
    std::vector<int32_t> of_last;
    const auto pairs = static_cast<int32_t>((columns + 1) / 2);
    for (const int32_t entry : gpu.column_order)
        if (entry / pairs == sheets - 1) of_last.push_back(entry % pairs);
    EXPECT_EQ(gpu.last_column_order, of_last);
    lengths.resize(32);
    EXPECT_EQ(gpu.longest_columns, lengths);
}

/// Computes row by row the number of slots by which each pair of column blocks must start after the next pair to be
/// behind it in all shared rows, and the number of all slots.
void expect_lags(const std::vector<int64_t>& found, const Map& active, int64_t sheets) {
    std::vector<int64_t> expected(2);
    for (int64_t sheet = 0; sheet < sheets; ++sheet)
        for (int64_t first = 0; first < active.blocks; first += 2) {
            int64_t own = 0, next = 0, lag = 0;
            for (int64_t row = 0; row < active.words * 32; ++row) {
                const auto sees = [&](int64_t block) {
                    return (block < active.blocks && active.bit(sheet, block, row)) ||
                           (block + 1 < active.blocks && active.bit(sheet, block + 1, row));
                };
                if (sees(first) && sees(first + 2)) lag = std::max(lag, next + 1 - own);
                own += sees(first), next += sees(first + 2);
            }
            expected[0] += lag, expected[1] += own;
        }
    EXPECT_EQ(found, expected);
}

/// The plan has every tile of the exact plan, and none of its full tiles is partial in the exact plan. If the mask is
/// `structured` it has no other tiles.
void expect_gpu_plan(const ColumnMask& mask, bool structured, const std::string& name) {
    SCOPED_TRACE(fmt::format("{} {} x {}, batch {}, {} heads", name, mask.rows, mask.columns, mask.batch, mask.heads));
    const GpuPlan gpu(mask);
    const TilePlan exact = make_tile_plan(mask);
    const int64_t sheets = mask.batch * mask.heads;
    ASSERT_EQ(gpu.plan.row_blocks, exact.row_blocks);
    ASSERT_EQ(gpu.plan.column_blocks, exact.column_blocks);
    ASSERT_EQ(gpu.plan.batch, exact.batch);
    ASSERT_EQ(gpu.plan.heads, exact.heads);
    expect_bounds(mask, gpu.bounds);
    expect_positions(mask, gpu.positions);
    for (int64_t sheet = 0; sheet < sheets; ++sheet) {
        for (int64_t r = 0; r < exact.row_blocks; ++r) {
            const auto list = static_cast<size_t>(sheet * exact.row_blocks + r);
            const auto begin = exact.cpu.by_row.begin() + exact.cpu.by_row_begin[list],
                       end = exact.cpu.by_row.begin() + exact.cpu.by_row_begin[list + 1];
            auto next = begin;
            for (int64_t c = 0; c < gpu.row_active.words * 32; ++c) {
                const bool active = gpu.row_active.bit(sheet, r, c), partial = gpu.row_partial.bit(sheet, r, c);
                const bool truly_active = next != end && next->index == c,
                           truly_partial = truly_active && next->partial;
                if (truly_active) ++next;
                const bool padded = (c + 1) * 64 > mask.columns;
                ASSERT_TRUE(active || !truly_active) << "row block " << r << ", column block " << c;
                ASSERT_TRUE(active || !partial) << "row block " << r << ", column block " << c;
                ASSERT_TRUE(partial || !truly_partial) << "row block " << r << ", column block " << c;
                ASSERT_TRUE(partial || !active || !padded) << "row block " << r << ", column block " << c;
                if (c >= exact.column_blocks) {
                    ASSERT_FALSE(active) << "row block " << r << ", column block " << c;
                    continue;
                }
                ASSERT_EQ(gpu.column_active.bit(sheet, c, r), active) << "row block " << r << ", column block " << c;
                ASSERT_EQ(gpu.column_partial.bit(sheet, c, r), partial) << "row block " << r << ", column block " << c;
                if (!structured) continue;
                ASSERT_EQ(active, truly_active) << "row block " << r << ", column block " << c;
                ASSERT_EQ(partial, truly_partial || (active && padded)) << "row block " << r << ", column block " << c;
            }
        }
        for (int64_t c = 0; c < exact.column_blocks; ++c)
            for (int64_t r = exact.row_blocks; r < gpu.column_active.words * 32; ++r)
                ASSERT_FALSE(gpu.column_active.bit(sheet, c, r) || gpu.column_partial.bit(sheet, c, r));
    }
    expect_orders(gpu, sheets);
    expect_lags(gpu.column_lags, gpu.column_active, sheets);
}

class GpuTilePlanTest : public testing::Test {
  protected:
    void SetUp() override {
        if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
};

TEST_F(GpuTilePlanTest, IsExactForEveryFamily) {
    for (const int64_t n : {1, 64, 65, 300, 1000, 2048, 2500})
        for (const MaskFamily& family : mask_families())
            expect_gpu_plan(family.build(default_parameters(n, n, 2, 3)), true, std::string(family.name));
}

TEST_F(GpuTilePlanTest, IsConservativeForAnyMask) {
    for (uint64_t seed = 0; seed < 100; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        expect_gpu_plan(random_column_mask(seed, 1 + s % 2, 1 + s % 3, s * 61 % 907, s * 97 % 811), false,
                        fmt::format("seed {}", seed));
    }
}

TEST_F(GpuTilePlanTest, IsExactForTreesWithinWindows) {
    for (uint64_t seed = 0; seed < 100; ++seed)
        expect_gpu_plan(tree_within_window(seed, 1 + static_cast<int64_t>(seed * 97 % 3000)), true,
                        fmt::format("seed {}", seed));
    // Short sequences: a block of rows has many runs.
    for (uint64_t seed = 0; seed < 20; ++seed)
        expect_gpu_plan(tree_within_window(seed, 700, 9), true, fmt::format("short sequences, seed {}", seed));
}

TEST_F(GpuTilePlanTest, IsConservativeForAnyPositions) {
    for (uint64_t seed = 0; seed < 100; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        expect_gpu_plan(random_positions_mask(seed, 1 + s % 2, 1 + s % 3, s * 61 % 907), false,
                        fmt::format("seed {}", seed));
    }
}

TEST_F(GpuTilePlanTest, IsTheSameFromVectorsOnTheDevice) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
        const ColumnMask mask = random_column_mask(seed, 2, 3, 700, 500);
        const GpuPlan wanted(mask), found(mask, GpuPlan::Vectors::on_device);
        EXPECT_EQ(found.bounds, wanted.bounds);
        EXPECT_EQ(found.row_order, wanted.row_order);
        EXPECT_EQ(found.column_order, wanted.column_order);
        EXPECT_EQ(found.row_triple_order, wanted.row_triple_order);
        EXPECT_EQ(found.last_column_order, wanted.last_column_order);
        EXPECT_EQ(found.longest_columns, wanted.longest_columns);
        EXPECT_EQ(found.column_lags, wanted.column_lags);
        EXPECT_TRUE(found.row_active == wanted.row_active && found.row_partial == wanted.row_partial);
        EXPECT_TRUE(found.column_active == wanted.column_active && found.column_partial == wanted.column_partial);
        EXPECT_EQ(found.plan.row_blocks, wanted.plan.row_blocks);
        EXPECT_EQ(found.plan.device(), Device::cuda);
    }
}

TEST_F(GpuTilePlanTest, AnyLength) {
    for (const int64_t rows : {0, 1, 64, 65, 129, 4200})
        for (const int64_t columns : {0, 1, 64, 65, 129, 4200})
            for (const bool causal : {true, false})
                expect_gpu_plan(causal ? causal_mask(rows, columns) : full_mask(rows, columns), true,
                                causal ? "causal" : "full");
}

TEST_F(GpuTilePlanTest, RecognisesTilesHiddenByTheChainOfRanges) {
    // Column j hides the future, then [uts, ute), which begins within the future, then [lts, lte), which begins where
    // that ends.
    ColumnMask mask{.causal = true, .vectors = MaskVectors::all, .rows = 256, .columns = 256};
    for (int32_t j = 0; j < 256; ++j) {
        mask.uts.push_back(std::min(j, 64)), mask.ute.push_back(100);
        mask.lts.push_back(100), mask.lte.push_back(128);
    }
    expect_gpu_plan(mask, false, "chain");
    const GpuPlan plan(mask);
    // Columns 64..127 are seen from row 128 on: the future hides rows 0..63, then follow [64, 100) and [100, 128).
    EXPECT_FALSE(plan.row_active.bit(0, 0, 1));
    EXPECT_FALSE(plan.row_active.bit(0, 1, 1));
    EXPECT_TRUE(plan.row_active.bit(0, 2, 1));
}

TEST_F(GpuTilePlanTest, LongRows) {
    const int64_t n = 131072;
    expect_gpu_plan(causal_document_mask(n, default_parameters(n, n, 1, 24).ends), true, "causal_document");
    expect_gpu_plan(random_eviction_mask(n, 1, n / 2, 3), true, "random_eviction");
    expect_gpu_plan(mask_family("agent_traces_window").build(default_parameters(n, n)), true, "agent_traces_window");
}

TEST(GpuTilePlan, IsLaidOutWithoutAGpu) {
    Arena planned(Device::cuda);
    const GpuTilePlan plan = GpuTilePlan::lay_out(planned, 3, 1000, 2100);
    const auto shape = [](const Tensor& t) { return std::vector(t.shape.begin(), t.shape.begin() + t.rank); };
    EXPECT_EQ(shape(plan.bounds), (std::vector<int64_t>{3, 2176, 4}));
    EXPECT_EQ(shape(plan.row_active), (std::vector<int64_t>{3, 16, 2}));
    EXPECT_EQ(shape(plan.row_partial), (std::vector<int64_t>{3, 16, 2}));
    EXPECT_EQ(shape(plan.column_active), (std::vector<int64_t>{3, 33, 1}));
    EXPECT_EQ(shape(plan.column_partial), (std::vector<int64_t>{3, 33, 1}));
    EXPECT_EQ(shape(plan.row_order), (std::vector<int64_t>{3 * 8}));
    EXPECT_EQ(shape(plan.column_order), (std::vector<int64_t>{3 * 17}));
    EXPECT_EQ(shape(plan.hopper.row_triple_order), (std::vector<int64_t>{3 * 6}));
    EXPECT_EQ(shape(plan.hopper.column_lags), (std::vector<int64_t>{2}));
    EXPECT_EQ(shape(plan.hopper.last_column_order), (std::vector<int64_t>{17}));
    EXPECT_EQ(shape(plan.hopper.longest_columns), (std::vector<int64_t>{32}));
    EXPECT_GE(plan.scratch.numel(), 4 * 3 * 2100 * 4);
    EXPECT_EQ(plan.positions.rank, 0);
    EXPECT_EQ(shape(GpuTilePlan::lay_out(planned, 6, 2100, 2100, 3).positions), (std::vector<int64_t>{3, 2176}));
    EXPECT_TRUE(plan.scratch.empty());
    EXPECT_EQ(planned.groups().front().first, "tile plans");
}

TEST(GpuTilePlan, RefusesAContextOfTheCpu) {
    Arena planned(Device::cuda);
    const GpuTilePlan plan = GpuTilePlan::lay_out(planned, 1, 64, 64);
    expect_error(Exit::internal, "tile plan: a plan of a GPU for a context on cpu",
                 [&] { make_gpu_tile_plan({}, plan, causal_mask(64, 64)); });
}

TEST_F(GpuTilePlanTest, RefusesMemoryWithoutRoomForPositions) {
    const ColumnMask mask = tree_within_window(1, 64);
    Arena planned(Device::cuda);
    const GpuTilePlan plan = GpuTilePlan::lay_out(planned, 2, 64, 64);
    expect_error(Exit::internal, "tile plan: memory without room for the positions of 2 rows",
                 [&] { make_gpu_tile_plan({.device = Device::cuda, .gpu = test_gpu()}, plan, mask); });
}

TEST_F(GpuTilePlanTest, RefusesMemoryOfAnotherSize) {
    Arena planned(Device::cuda);
    const GpuTilePlan plan = GpuTilePlan::lay_out(planned, 1, 64, 64);
    expect_error(Exit::internal, "does not fit a mask of 1 sheets, 64 x 65",
                 [&] { make_gpu_tile_plan({.device = Device::cuda, .gpu = test_gpu()}, plan, causal_mask(64, 65)); });
}

}  // namespace
}  // namespace colonnade
