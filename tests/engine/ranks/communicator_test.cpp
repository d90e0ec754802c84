// Collectives over every split of a bucket, errors that end all ranks, and the watchdog.

#include "engine/ranks/communicator.h"

#include <limits>
#include <thread>

#include "engine/device/arena.h"
#include "engine/device/philox.h"
#include "tests/support/expect_error.h"
#include "tests/support/mpirun.h"
#include "tests/support/test_gpu.h"

// Calls of MPI in which a rank stops itself: this program's definitions come before the library's, which has a second
// name for each.
static bool stops_in_init = false, stops_in_finalize = false;
extern "C" {
int PMPI_Init_thread(int*, char***, int, int*) __attribute__((weak));
int PMPI_Finalize() __attribute__((weak));
int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
    if (stops_in_init) raise(SIGSTOP);
    return PMPI_Init_thread(argc, argv, required, provided);
}
int MPI_Finalize() {
    if (stops_in_finalize) raise(SIGSTOP);
    return PMPI_Finalize();
}
}

namespace colonnade {
namespace {

class OnRanks : public testing::Test {
  protected:
    void SetUp() override {
        if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    }
    /// Runs a test below on several ranks and expects it to pass on all.
    static void expect_success(int ranks, const std::string& filter) {
        const Program::Result result = run_on_ranks(ranks, filter);
        EXPECT_EQ(result.exit, 0) << result.out << result.err;
        EXPECT_EQ(count_of(result.out, "[  PASSED  ] 1 test"), ranks) << result.out;
    }
};

TEST(PartOf, CutsABucketIntoNeighbouringParts) {
    for (const int ranks : {1, 2, 3, 8})
        for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{64}, int64_t{1000}, int64_t{123456}}) {
            int64_t end = 640;
            for (int r = 0; r < ranks; ++r) {
                const Range part = part_of({640, 640 + size}, r, ranks);
                EXPECT_EQ(part.begin, end);
                EXPECT_EQ(part.begin % 64, 0);
                EXPECT_GE(part.size(), 0);
                end = part.end;
            }
            EXPECT_EQ(end, 640 + size);
        }
}

constexpr int64_t all = 2 * 262144 + 3077;  ///< with two ranks a part needs more than one message

/// The elements of one rank.
std::vector<double> values_of_rank(int rank) {
    const Philox random{7, static_cast<uint64_t>(rank)};
    std::vector<double> values(static_cast<size_t>(all));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(random.bits(i) >> 11) * 0x1p-53 - 0.5;
    return values;
}

Communicator::Ticket reduce(Communicator& communicator, bool scattered, const Communicator::Reduce& args) {
    return scattered ? communicator.reduce_scatter(args) : communicator.all_reduce(args);
}

/// Reduces and gathers buckets of many sizes inside a larger buffer and compares them bit by bit with sums made here.
/// Elements outside of the bucket must not change.
template <typename T>
void expect_sums(const Ranks& ranks, Communicator& communicator, bool scattered, DType wire) {
    const int n = ranks.size();
    std::vector<std::vector<double>> values;
    for (int r = 0; r < n; ++r) values.push_back(values_of_rank(r));
    const std::vector<double>& mine = values[static_cast<size_t>(ranks.rank())];
    std::vector<uint8_t> memory(Communicator::scratch_bytes(Device::cpu, n, all, dtype_of<T>(), wire));
    const Tensor scratch(memory.data(), DType::u8, {std::ssize(memory)});
    for (const Range bucket :
         {Range{0, 64}, Range{128, 255}, Range{64, 64 + 64 * 7}, Range{320, 20000}, Range{0, all}}) {
        std::vector<T> own;
        for (const double x : mine) own.push_back(static_cast<T>(x));
        const std::vector<T> before = own;
        const Tensor flat(own.data(), dtype_of<T>(), {all});
        communicator.wait(reduce(communicator, scattered,
                                 {.flat = flat, .bucket = bucket, .wire = wire, .scratch = scratch, .what = "sum"}));
        const Range valid = scattered ? part_of(bucket, ranks.rank(), n) : bucket;
        int64_t wrong = 0;
        for (int64_t i = 0; i < all; ++i) {
            T expected = before[static_cast<size_t>(i)];
            if (i >= valid.begin && i < valid.end) {
                expected = 0;
                for (int r = 0; r < n; ++r) {
                    const T x = static_cast<T>(values[static_cast<size_t>(r)][static_cast<size_t>(i)]);
                    expected += wire == DType::bf16 ? float_from_bf16(bf16_from_float(static_cast<float>(x))) : x;
                }
            } else if (i >= bucket.begin && i < bucket.end) {
                continue;  // another rank's part
            }
            wrong += own[static_cast<size_t>(i)] != expected;
        }
        EXPECT_EQ(wrong, 0) << "of bucket " << bucket.begin << " to " << bucket.end;
        if (!scattered) continue;
        // reduce_scatter and all_gather together equal all_reduce.
        communicator.wait(
            communicator.all_gather({.flat = flat, .bucket = bucket, .scratch = scratch, .what = "gather"}));
        std::vector<T> everywhere = before;
        communicator.all_reduce({.flat = Tensor(everywhere.data(), dtype_of<T>(), {all}),
                                 .bucket = bucket,
                                 .wire = wire,
                                 .scratch = scratch,
                                 .what = "sum"});
        EXPECT_TRUE(own == everywhere) << "bucket " << bucket.begin << " to " << bucket.end;
    }
}

TEST(DISABLED_EveryRank, Sums) {
    Ranks ranks({.program = "communicator_test"});
    const auto communicator = Communicator::join(ranks, nullptr, true);
    expect_sums<float>(ranks, *communicator, false, DType::f32);
    expect_sums<float>(ranks, *communicator, true, DType::f32);
    expect_sums<float>(ranks, *communicator, true, DType::bf16);
    expect_sums<double>(ranks, *communicator, true, DType::f32);

    std::vector<double> numbers = {0.1 * ranks.rank(), 1, 1e300}, expected(3);
    communicator->all_reduce_scalars({{Tensor(numbers.data(), DType::f64, {3})}});
    for (int r = 0; r < ranks.size(); ++r) expected[0] += 0.1 * r, expected[1] += 1, expected[2] += 1e300;
    EXPECT_EQ(numbers, expected);
    const double nothing = -std::numeric_limits<double>::infinity();
    std::vector<double> extremes = {-1.0 - ranks.rank(), 2.0 * ranks.rank(), ranks.first() ? nothing : -5, nothing};
    communicator->all_reduce_scalars(
        {{Tensor(numbers.data(), DType::f64, {2})}, {Tensor(extremes.data(), DType::f64, {4}), Communicator::Op::max}});
    EXPECT_EQ(extremes, (std::vector<double>{-1, 2.0 * (ranks.size() - 1), -5, nothing}));

    for (int from = 0; from < ranks.size(); ++from) {
        std::vector<float> values(1000, static_cast<float>(10 + ranks.rank()));
        communicator->wait(communicator->broadcast({.data = view_of(values), .from = from, .what = "broadcast"}));
        EXPECT_EQ(values, std::vector<float>(1000, static_cast<float>(10 + from)));
    }

    // Rank 0 gathers the shards of a buffer.
    const std::vector<Range> buckets = {{0, 64}, {64, 1000}, {1024, 300000}};
    std::vector<float> shard, whole(ranks.first() ? 300000 : 0);
    for (const Range& bucket : buckets)
        for (int64_t i = part_of(bucket, ranks.rank(), ranks.size()).begin;
             i < part_of(bucket, ranks.rank(), ranks.size()).end; ++i)
            shard.push_back(static_cast<float>(i));
    communicator->gather(Tensor(whole.data(), DType::f32, {std::ssize(whole)}),
                         Tensor(shard.data(), DType::f32, {std::ssize(shard)}), buckets);
    int64_t wrong = 0;
    for (const Range& bucket : buckets)
        for (int64_t i = bucket.begin; ranks.first() && i < bucket.end; ++i)
            wrong += whole[static_cast<size_t>(i)] != static_cast<float>(i);
    EXPECT_EQ(wrong, 0);
}
TEST_F(OnRanks, SumsAreTakenInRankOrder) {
    for (const int n : {2, 3, 4}) expect_success(n, "DISABLED_EveryRank.Sums");
}

TEST(DISABLED_EveryRank, Words) {
    Ranks ranks({.program = "communicator_test"});
    const std::string own(static_cast<size_t>(ranks.rank()) * 3, static_cast<char>('a' + ranks.rank()));
    EXPECT_EQ(ranks.gather("words", own), (std::vector<std::string>{"", "bbb", "cccccc"}));
    EXPECT_EQ(ranks.broadcast("word", ranks.first() ? "first" : "other"), "first");
    EXPECT_EQ(ranks.broadcast("word", ""), "");
    EXPECT_EQ(ranks.max("number", -ranks.rank()), 0);
    EXPECT_EQ(ranks.sum("numbers", {0.1, static_cast<double>(ranks.rank())}),
              (std::vector<double>{0.1 + 0.1 + 0.1, 3}));
    std::vector<std::string> seen;
    ranks.in_turn("turn", [&] { seen.push_back("mine"); });
    EXPECT_EQ(seen.size(), 1u);
    EXPECT_EQ(ranks.local_size(), 3);
}
TEST_F(OnRanks, Words) {
    expect_success(3, "DISABLED_EveryRank.Words");
}

/// Ends the test as a program's main would, with its exit code.
void end_with(Ranks& ranks, const std::function<void()>& body) {
    std::exit(run_program("communicator_test", [&] {
        return ranks.guard([&] {
            body();
            return 0;
        });
    }));
}

TEST(DISABLED_EveryRank, OneThrowsTogether) {
    Ranks ranks({.program = "communicator_test"});
    end_with(ranks, [&] {
        ranks.together("outer", [&] {
            ranks.in_turn("inner", [&] {
                if (ranks.rank() == 1) fail(Exit::data, "bad line");
            });
        });
    });
}
TEST(DISABLED_EveryRank, AllThrowTogether) {
    Ranks ranks({.program = "communicator_test"});
    end_with(ranks, [&] { ranks.together("part", [] { fail(Exit::config, "bad key"); }); });
}
TEST(DISABLED_EveryRank, OneThrowsAlone) {
    Ranks ranks({.program = "communicator_test"});
    end_with(ranks, [&] {
        ranks.set_step(41);
        ranks.barrier("first");
        if (ranks.rank() == 1) fail(Exit::storage, "disk full");
        ranks.barrier("second");
    });
}
TEST_F(OnRanks, AnErrorEndsAllRanksAndIsPrintedOnce) {
    const auto expect_error_line = [](const std::string& filter, Exit exit, const std::string& line) {
        const Program::Result result = run_on_ranks(3, filter);
        EXPECT_EQ(result.exit, static_cast<int>(exit)) << result.err;
        EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
        EXPECT_NE(result.err.find("communicator_test: error: " + line), std::string::npos) << result.err;
    };
    const std::string host = [] {
        char name[256] = {};
        gethostname(name, sizeof name - 1);
        return std::string(name);
    }();
    expect_error_line("DISABLED_EveryRank.OneThrowsTogether", Exit::data, "rank 1 of 3 on " + host + ": bad line\n");
    expect_error_line("DISABLED_EveryRank.AllThrowTogether", Exit::config, "bad key\n");
    expect_error_line("DISABLED_EveryRank.OneThrowsAlone", Exit::storage,
                      "rank 1 of 3 on " + host + ", at step 41: disk full\n");
}

TEST(DISABLED_EveryRank, OneHangs) {
    Ranks ranks({.program = "communicator_test", .timeout = 2});
    ranks.set_step(7);
    end_with(ranks, [&] {
        ranks.barrier("first");
        if (ranks.rank() == 2) std::this_thread::sleep_for(std::chrono::seconds(60));
        ranks.barrier("second");
    });
}
/// Where no watchdog watches.
TEST(DISABLED_EveryRank, OneStopsBeforeItJoins) {
    stops_in_init = mpi::launched_rank() == 0;
    Ranks ranks({.program = "communicator_test", .timeout = 1, .advice = "try again"});
}
TEST(DISABLED_EveryRank, OneStopsBeforeItEnds) {
    Ranks ranks({.program = "communicator_test", .timeout = 1});
    stops_in_finalize = ranks.rank() == 2;
}
TEST_F(OnRanks, AStopBeforeTheStartOrAfterTheEndEndsAll) {
    for (const auto& [filter, rank, line] :
         {std::tuple("DISABLED_EveryRank.OneStopsBeforeItJoins", 0,
                     "not all ranks have joined the others after 3 s. All ranks stop; try again\n"),
          {"DISABLED_EveryRank.OneStopsBeforeItEnds", 2, "not all ranks have ended after 3 s. All ranks stop\n"}}) {
        const Program::Result result = run_on_ranks(3, filter);
        EXPECT_EQ(result.exit, static_cast<int>(Exit::peer)) << result.err;
        EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
        for (const std::string& part : {fmt::format("error: rank {} of 3 (process ", rank),
                                        fmt::format(") is stopped, by a signal or a debugger, and {}", line)})
            EXPECT_NE(result.err.find(part), std::string::npos) << result.err << "\n  lacks: " << part;
    }
}

TEST(DISABLED_EveryRank, OneWorksForLong) {
    Ranks ranks({.program = "communicator_test", .timeout = 2});
    ranks.together("long work", [&] {
        if (ranks.first()) std::this_thread::sleep_for(std::chrono::seconds(5));
    });
}
TEST_F(OnRanks, TheWatchdogTellsLongWorkFromAHang) {
    const Program::Result result = run_on_ranks(3, "DISABLED_EveryRank.OneHangs");
    EXPECT_EQ(result.exit, static_cast<int>(Exit::peer)) << result.err;
    EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
    EXPECT_NE(result.err.find("has not reached 'second' for 2 s; last seen at step 7, after 'first'"),
              std::string::npos)
        << result.err;
    expect_success(3, "DISABLED_EveryRank.OneWorksForLong");
}

TEST(OneRank, EveryCallWorks) {
    const Ranks& ranks = one_rank();
    EXPECT_FALSE(ranks.several());
    EXPECT_TRUE(ranks.first());
    EXPECT_EQ(ranks.gather("", "x"), std::vector<std::string>{"x"});
    EXPECT_EQ(ranks.broadcast("", "x"), "x");
    EXPECT_EQ(ranks.max("", 3), 3);
    EXPECT_EQ(ranks.sum("", {1, 2}), (std::vector<double>{1, 2}));
    expect_error(Exit::data, "x", [&] { ranks.together("", [] { fail(Exit::data, "x"); }); });
    expect_error(Exit::data, "x", [&] { ranks.end_all_on_error([] { fail(Exit::data, "x"); }); });
}

/// With one rank every call must leave the numbers unchanged, except for rounding to bf16.
TEST(Nccl, WithOneRank) {
    Gpu* gpu = test_gpu();
    if (!gpu) GTEST_SKIP() << "no CUDA device";
    if (!built_with_nccl()) GTEST_SKIP() << "a build without NCCL";
    const auto communicator = Communicator::join(one_rank(), gpu, true);
    Arena arena(Device::cuda, size_t{8} << 20);
    const Tensor flat = arena.tensor("flat", DType::f32, {all}), numbers = arena.tensor("numbers", DType::f64, {4});
    const Tensor scratch = arena.tensor(
        "scratch", DType::u8,
        {static_cast<int64_t>(Communicator::scratch_bytes(Device::cuda, 1, all, DType::f32, DType::bf16))});
    std::vector<float> own, found(all);
    for (const double x : values_of_rank(0)) own.push_back(static_cast<float>(x));
    const auto sum = [&](bool scattered, DType wire) {
        gpu->upload(flat, own.data());
        communicator->wait(
            reduce(*communicator, scattered,
                   {.flat = flat, .bucket = {64, all - 5}, .wire = wire, .scratch = scratch, .what = "sum"}));
        gpu->download(found.data(), flat);
    };
    for (const bool scattered : {false, true}) {
        sum(scattered, DType::f32);
        EXPECT_TRUE(found == own);
        sum(scattered, DType::bf16);
        for (int64_t i = 0; i < all; ++i) {
            const float x = own[static_cast<size_t>(i)];
            const bool inside = i >= 64 && i < all - 5;
            ASSERT_EQ(found[static_cast<size_t>(i)], inside ? float_from_bf16(bf16_from_float(x)) : x) << i;
        }
    }
    gpu->upload(flat, own.data());
    communicator->wait(communicator->all_gather({.flat = flat, .bucket = {64, all - 5}, .what = "gather"}));
    gpu->download(found.data(), flat);
    EXPECT_TRUE(found == own);
    communicator->wait(communicator->broadcast({.data = flat, .from = 0, .what = "broadcast"}));
    gpu->download(found.data(), flat);
    EXPECT_TRUE(found == own);
    const std::vector<double> four = {1, 2.5, -3, 1e300};
    std::vector<double> same(4);
    gpu->upload(numbers, four.data());
    communicator->all_reduce_scalars(
        {{numbers.slice(0, 0, 1)}, {numbers.slice(0, 1, 3), Communicator::Op::max}, {numbers.slice(0, 3, 4)}});
    gpu->download(same.data(), numbers);
    EXPECT_EQ(same, four);
}

TEST(Nccl, RefusesMulticast) {
    Gpu* gpu = test_gpu();
    if (!gpu || !built_with_nccl()) GTEST_SKIP() << "no CUDA device, or a build without NCCL";
    setenv("NCCL_NVLS_ENABLE", "1", 1);
    expect_error(Exit::config, "NCCL_NVLS_ENABLE", [&] { Communicator::join(one_rank(), gpu, false); });
    unsetenv("NCCL_NVLS_ENABLE");
}

}  // namespace
}  // namespace colonnade
