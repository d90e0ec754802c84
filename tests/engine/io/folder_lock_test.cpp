// Folders that several processes write into: what killed processes leave is swept, but only when nobody can need it.

#include "engine/io/folder_lock.h"

#include <array>

#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "tests/support/faulty_files.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

constexpr std::array<std::string_view, 2> stems = {"cache-", "model"};

class SharedFolders : public FileTest {
  protected:
    /// Writes a file, an HDF5 file and a folder under temporary names, and commits them.
    void write() const {
        const SharedFolder share(folder_, stems);
        write_file_atomically(path("cache-1"), "text");
        FileCommit file(path("cache-2.h5"));
        Hdf5Writer numbers(file.temporary());
        const std::vector<float> values(100, 1.0f);
        numbers.write("numbers", view_of(values));
        numbers.close();
        file.commit();
        FolderCommit folder(path("model"));
        make_folders(folder.folder() + "/sub");
        write_file_atomically(folder.folder() + "/sub/part", "text");
        folder.commit();
        remove_folder(path("model"));
    }
    /// The names under temporary names.
    int64_t leftovers() const {
        int64_t count = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder_))
            count += std::string(entry.path().filename()).find(".t") != std::string::npos;
        return count;
    }
};

TEST_F(SharedFolders, AreSweptAfterAKillAtAnyCall) {
    FaultyFiles files;
    const ReplacedFileSystem replaced(files);
    int kills = 0, left = 0;
    while (exit_of_child([&] {
               files.arm({.kill_at = kills});
               write();
               return 0;
           }) == killed) {
        ++kills;
        left += leftovers() > 0;
        const SharedFolder next(folder_, stems);
        EXPECT_EQ(leftovers(), 0) << "killed at call " << kills << ": " << listing(folder_);
        for (const char* name : {"cache-1", "cache-2.h5", "model"}) remove_tree(path(name));
    }
    EXPECT_GT(kills, 25);
    EXPECT_GT(left, 15) << "the kills left nothing";
    EXPECT_EQ(listing(folder_), "cache-1 cache-2.h5");
}

TEST_F(SharedFolders, AreNotSweptWhileAnotherProcessWrites) {
    FaultyFiles files;
    // A killed process has left something; another one has begun before it was swept.
    const std::string dead = path("cache-3.h5.tmp-99999999");
    std::optional<SharedFolder> other(std::in_place, folder_, stems);
    spill(dead, "half");
    EXPECT_EQ(exit_of_child([&] {
                  const SharedFolder share(folder_, stems);
                  return std::filesystem::exists(dead) ? 0 : 1;
              }),
              0)
        << "swept beside a process that writes";
    other.reset();
    const SharedFolder share(folder_, stems);
    EXPECT_FALSE(std::filesystem::exists(dead));
}

TEST_F(SharedFolders, KeepWhatIsNotOurs) {
    const std::string own = fmt::format("cache-1.tmp-{}", getpid()), parent = fmt::format("cache-1.tmp-{}", getppid());
    const std::vector<std::string> kept = {"notes.tmp-99999999", "cache-1.tmp-x",  "cache-1.tmp-", "cache-1.tmp",
                                           "cache-1.tmp--5",     "cache-99999999", parent},
                                   gone = {"cache-1.tmp-99999999", "cache-1.tmp-99999999-2", "model.trash-99999999",
                                           own};
    for (const std::string& name : kept) spill(path(name), "text");
    for (const std::string& name : gone) spill(path(name), "text");
    std::filesystem::create_directories(path("model.tmp-99999999/sub"));
    std::filesystem::create_directory_symlink("/", path("model.tmp-99999999/sub/link"));
    const SharedFolder share(folder_, stems);
    std::vector<std::string> expected = kept;
    std::ranges::sort(expected);
    EXPECT_EQ(listing(folder_), fmt::format("{}", fmt::join(expected, " ")));
    EXPECT_NO_THROW(SharedFolder(path("none"), stems));
}

}  // namespace
}  // namespace colonnade
