// Open MPI, opened when ranks start, as the portable build does: messages under mpirun, and one clear line without it.
// This program is not linked with MPI.

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/device/loaded_libraries.h"
#include "engine/device/opened_library.h"
#include "engine/ranks/message_passing.h"
#include "tests/support/expect_error.h"
#include "tests/support/file_test.h"
#include "tests/support/mpirun.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

bool mpi_is_loaded() {
    return std::ranges::any_of(loaded_libraries(),
                               [](const fs::path& file) { return file.filename().string().starts_with("libmpi.so"); });
}

TEST(DISABLED_OpenedMpi, MovesData) {
    EXPECT_FALSE(mpi_is_loaded());
    const mpi::World world = mpi::start();
    EXPECT_TRUE(mpi_is_loaded());
    EXPECT_EQ(world.rank, mpi::launched_rank());
    ASSERT_EQ(world.size, 3);
    EXPECT_EQ(world.local_size, 3);

    int told = world.rank == 1 ? 17 : 0;
    mpi::broadcast(&told, sizeof told, 1);
    EXPECT_EQ(told, 17);
    std::array<int, 3> all{};
    const int own = 10 * world.rank;
    mpi::all_gather(all.data(), &own, sizeof own);
    EXPECT_EQ(all, (std::array{0, 10, 20}));
    all = {-1, 10 * world.rank, -1};
    std::swap(all[1], all[static_cast<size_t>(world.rank)]);
    mpi::all_gather(all.data(), &all[static_cast<size_t>(world.rank)], sizeof own);
    EXPECT_EQ(all, (std::array{0, 10, 20})) << "in place";
    all = {};
    mpi::gather(all.data(), &own, sizeof own);
    EXPECT_EQ(all, world.rank == 0 ? (std::array{0, 10, 20}) : (std::array{0, 0, 0}));
    const std::array<int, 3> from = {world.rank, world.rank + 100, world.rank + 200};
    mpi::all_to_all(all.data(), from.data(), sizeof(int));
    for (int r = 0; r < 3; ++r) EXPECT_EQ(all[static_cast<size_t>(r)], r + 100 * world.rank);
    mpi::barrier();
    mpi::finish();
}

TEST(OpenedMpi, MovesDataBetweenRanks) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun";
    const Program::Result result = run_on_ranks(3, "DISABLED_OpenedMpi.MovesData");
    EXPECT_EQ(result.exit, 0) << result.out << result.err;
}

TEST(OpenedMpi, IsNotOpenedByOneProcess) {
    EXPECT_EQ(mpi::start().size, 1);
    EXPECT_FALSE(mpi_is_loaded());
}

class WithoutOpenMpi : public FileTest {
  protected:
    /// This test program, as the first of two ranks, with these files alone in place of MPI's.
    Program::Result two_ranks(const std::string& filter) const {
        const std::string self = fs::read_symlink("/proc/self/exe");
        return run(self, {"--gtest_also_run_disabled_tests", "--gtest_filter=" + filter}, [this] {
            setenv("LD_LIBRARY_PATH", folder_.c_str(), 1);
            setenv("COLONNADE_MPI", path("libmpi.so.40").c_str(), 1);
            setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
        });
    }
    void expect_line(const std::string& filter) const {
        const Program::Result result = two_ranks(filter);
        EXPECT_EQ(result.exit, 0) << result.out << result.err;
        EXPECT_NE(result.out.find("1 test"), std::string::npos) << result.out;
    }
    static std::string start() {
        return expect_error(Exit::config, "install the package openmpi-bin", [] { mpi::start(); });
    }
    static bool has(const std::string& line, const std::string& part) { return line.find(part) != line.npos; }
};
using DISABLED_WithoutOpenMpi = WithoutOpenMpi;

TEST_F(DISABLED_WithoutOpenMpi, NoMpi) {
    const std::string line = start();
    EXPECT_TRUE(has(line, "Open MPI was not found; tried ")) << line;
    EXPECT_EQ(mpi::library_version(), "");
}
TEST_F(DISABLED_WithoutOpenMpi, Mpich) {
    const std::string line = start();
    EXPECT_TRUE(has(line, "MPICH or a relative of it (libmpi.so.12) is here, but this program cannot use it")) << line;
}
TEST_F(DISABLED_WithoutOpenMpi, SomethingElse) {
    const std::string line = start();
    EXPECT_TRUE(has(line, "has no 'MPI_Init_thread', so it is not the Open MPI that this program expects")) << line;
}

TEST_F(WithoutOpenMpi, OneLine) {
    expect_line("DISABLED_WithoutOpenMpi.NoMpi");
}
TEST_F(WithoutOpenMpi, MpichIsRefusedByName) {
    fs::copy_file(FAKE_LIBRARY, path("libmpi.so.12"));
    expect_line("DISABLED_WithoutOpenMpi.Mpich");
}
TEST_F(WithoutOpenMpi, AnotherLibraryIsRefused) {
    fs::copy_file(FAKE_LIBRARY, path("libmpi.so.40"));
    expect_line("DISABLED_WithoutOpenMpi.SomethingElse");
}

}  // namespace
}  // namespace colonnade
