// Power cuts during the small steps of engine/io/files.h, and a test of the generator of states itself: it must find
// what programs lose that leave out an fsync, write in place, or rename in the wrong order.

#include "tests/support/crash_states.h"

#include "engine/io/files.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

/// Replaces "a" without one of the steps of write_file_atomically().
void replace(const std::string& path, bool sync_file, bool sync_folder) {
    const FileDescriptor fd(file_system().open(path + ".new", O_WRONLY | O_CREAT));
    write_all(fd, path, std::string(1500, 'n'));
    if (sync_file) file_system().fsync(fd);
    rename_path(path + ".new", path);
    if (sync_folder) sync_path(parent_of(path));
}

class CrashStatesTest : public FileTest {
  protected:
    /// Records `body`, and checks that "a" is the old or the new file, and the new one when `body` has returned.
    CrashStates::Result cut(const std::function<void()>& body, Syncs syncs = Syncs::all) {
        spill(path("a"), old_);
        RecordedFiles files(folder_);
        {
            const ReplacedFileSystem replaced(files);
            body();
            files.mark();
        }
        return CrashStates(files, syncs).run(300, [&](const DiskState& disk, int64_t marks) -> std::string {
            const auto a = disk.find("a");
            if (a == disk.end()) return "a is gone";
            if (a->second == new_) return "";
            if (marks > 0) return "the new file is lost";
            return a->second == old_ ? "" : "a is neither the old nor the new file";
        });
    }
    const std::string old_ = std::string(700, 'o'), new_ = std::string(1500, 'n');
};

TEST_F(CrashStatesTest, AReplacedFileIsOldOrNew) {
    const auto result = cut([&] { write_file_atomically(path("a"), new_); });
    EXPECT_EQ(result.broken, 0) << result.first;
    EXPECT_GE(result.states, 10);
}

TEST_F(CrashStatesTest, WhatIsLeftOutIsFound) {
    const auto finds = [&](const CrashStates::Result& result, const std::string& what) {
        EXPECT_GT(result.broken, 0) << what;
        EXPECT_TRUE(result.first.starts_with(what)) << result.first;
    };
    finds(cut([&] { replace(path("a"), false, true); }), "a is neither");
    finds(cut([&] { replace(path("a"), true, false); }), "the new file is lost");
    const auto whole = cut([&] { replace(path("a"), true, true); });
    EXPECT_EQ(whole.broken, 0) << whole.first;
    finds(cut([&] { write_file_atomically(path("a"), new_); }, Syncs::no_files), "a is neither");
    finds(cut([&] { write_file_atomically(path("a"), new_); }, Syncs::no_folders), "the new file is lost");
    finds(cut([&] {
              OverwrittenFile file(path("a"));
              file.write_at(0, new_.data(), new_.size());
              file.close();
          }),
          "a is neither");
    finds(cut([&] {
              remove_file(path("a"));
              write_file_atomically(path("a"), new_);
          }),
          "a is gone");
}

/// Sectors of one write arrive or not, each alone.
TEST_F(CrashStatesTest, WritesAreTornInSectors) {
    spill(path("a"), old_);
    RecordedFiles files(folder_);
    {
        const ReplacedFileSystem replaced(files);
        OverwrittenFile file(path("a"));
        file.write_at(100, std::string(2000, 'n').data(), 2000);
    }
    std::set<std::string> patterns;
    CrashStates(files).run(400, [&](const DiskState& disk, int64_t) -> std::string {
        const std::string& a = disk.at("a");
        std::string pattern;
        for (size_t at = 0; at < a.size(); at += 512) {
            const std::string sector = a.substr(std::max<size_t>(at, 100), at == 0 ? 412 : 512);
            const auto only = [&](char c) { return sector.find_first_not_of(c) == sector.npos; };
            pattern += only('n') ? 'n' : only('\0') ? '0' : '.';
        }
        patterns.insert(pattern);
        return a.substr(0, 100) == std::string(100, 'o') ? "" : "what was not written has changed";
    });
    EXPECT_TRUE(patterns.contains("nnnnn") && patterns.contains("..")) << "all and nothing";
    EXPECT_TRUE(patterns.contains("n.n0n") || patterns.contains("n.n00")) << fmt::format("{}", patterns);
    EXPECT_GT(patterns.size(), 15u) << fmt::format("{}", patterns);
}

TEST_F(CrashStatesTest, FoldersAreCommittedWholeAndRemovedWhole) {
    RecordedFiles files(folder_);
    {
        const ReplacedFileSystem replaced(files);
        make_folders(path("x/y"));
        for (const char* name : {"x/y/one", "x/y/two"}) {
            FolderCommit commit(path(name));
            make_folders(commit.folder() + "/sub");
            for (const char* file : {"/a", "/sub/b"}) {
                OutputFile out(commit.folder() + file);
                out.write(new_);
                out.close();
            }
            commit.commit();
            files.mark();
        }
        remove_folder(path("x/y/one"));
        files.mark();
    }
    const auto check = [&](const DiskState& disk, int64_t marks) -> std::string {
        for (const auto& [name, from, until] : {std::tuple{"x/y/one/", 1, 2}, {"x/y/two/", 2, 9}}) {
            const bool there = disk.contains(name);
            if (!there && marks >= from && marks < until) return fmt::format("{} is lost", name);
            if (there && marks >= 3 && std::string(name) == "x/y/one/") return "x/y/one/ is back";
            for (const char* file : {"a", "sub/b"})
                if (there && (!disk.contains(std::string(name) + file) || disk.at(std::string(name) + file) != new_))
                    return fmt::format("{}{} is not whole", name, file);
        }
        return "";
    };
    const auto result = CrashStates(files).run(2000, check);
    EXPECT_EQ(result.broken, 0) << result.first;
    EXPECT_GE(result.states, 50);
    for (const Syncs broken : {Syncs::no_files, Syncs::no_folders})
        EXPECT_GT(CrashStates(files, broken).run(2000, check).broken, 0);
}

}  // namespace
}  // namespace colonnade
