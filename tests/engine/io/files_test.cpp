#include "engine/io/files.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#include "engine/io/folder_lock.h"
#include "engine/io/gguf.h"
#include "engine/io/json.h"
#include "engine/io/safetensors.h"
#include "engine/io/sha256.h"
#include "tests/support/faulty_files.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

class Files : public FileTest {
  protected:
    // Commits two files, one of them in a subfolder.
    void commit_folder() const {
        FolderCommit commit(path("final"));
        for (const char* name : {"one", "sub/two"}) {
            make_folders(commit.folder() + "/sub");
            OutputFile file(commit.folder() + "/" + name);
            file.write("content of ");
            file.write(name);
            file.close();
        }
        commit.commit();
    }
    bool whole() const {
        return slurp(path("final/one")) == "content of one" && slurp(path("final/sub/two")) == "content of sub/two";
    }
    bool exists(const std::string& name) const { return std::filesystem::exists(path(name)); }
    /// Runs `body` in a child process that is killed at a call; returns its exit.
    template <typename Body>
    int kill_at(int call, Body&& body) {
        return exit_of_child([&] {
            shim_.arm({.kill_at = call});
            body();
            return 0;
        });
    }

    FaultyFiles shim_;
    ReplacedFileSystem replaced_{shim_};
};

TEST_F(Files, ReadsWhole) {
    const std::string content = std::string(100'000, 'x') + '\0' + "end";
    spill(path("a"), content);
    EXPECT_EQ(read_file(path("a")), content);
    EXPECT_EQ(read_file(path("a"), content.size()), content);
    spill(path("empty"), "");
    EXPECT_EQ(read_file(path("empty")), "");
    EXPECT_NE(read_file("/proc/self/status").find("VmRSS"), std::string::npos) << "a file that reports size 0";
    expect_error(Exit::data, "100004 bytes or more, expected at most 100003",
                 [&] { read_file(path("a"), content.size() - 1); });
    expect_error(Exit::data, path("b") + ": cannot open: No such file", [&] { read_file(path("b")); });
    expect_error(Exit::data, folder_ + ": cannot read: Is a directory", [&] { read_file(folder_); });
}

/// Nothing waits for a writer or reads a device for ever: the test would not end.
TEST_F(Files, RefusesWhatIsNoFile) {
    ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
    std::filesystem::create_symlink(path("fifo"), path("link"));
    const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    ASSERT_EQ(chdir(folder_.c_str()), 0);  // the path of a socket is short
    std::strcpy(address.sun_path, "socket");
    ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    for (const auto& [name, kind] : {std::pair{path("fifo"), "a FIFO (named pipe)"},
                                     {path("link"), "a FIFO (named pipe)"},
                                     {path("socket"), "a socket"},
                                     {std::string("/dev/zero"), "a character device"}}) {
        const std::string message = fmt::format("{}: is {}, expected a file", name, kind);
        expect_error(Exit::data, message, [&, &name = name] { read_file(name); });
        expect_error(Exit::data, message, [&, &name = name] { sha256_file(name); });
    }
    close(listener);
    expect_error(Exit::data, "socket: is a socket", [&] { read_file(path("socket"), 10, Readable::streams); });
    expect_error(Exit::data, "Is a directory", [&] { read_file(folder_, 10, Readable::streams); });
}

TEST_F(Files, LooksUpWhatLiesAtAPath) {
    spill(path("file"), "");
    make_folders(path("folder"));
    std::filesystem::create_symlink("folder", path("link"));
    std::filesystem::create_symlink("nothing", path("dangling"));
    ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
    struct Case {
        std::string path;
        bool exists, folder, file;
    };
    const Case cases[] = {{path("file"), true, false, true},
                          {path("folder"), true, true, false},
                          {path("link"), true, true, false},
                          {path("fifo"), true, false, false},
                          {path("dangling"), false, false, false},
                          {path("nothing"), false, false, false},
                          {path("file/inside"), false, false, false},
                          {path(std::string(5000, 'a')), false, false, false},
                          {path(std::string(300, 'a')), false, false, false},
                          {"", false, false, false}};
    for (const Case& c : cases) {
        SCOPED_TRACE(c.path);
        EXPECT_EQ(path_exists(c.path), c.exists);
        EXPECT_EQ(is_folder(c.path), c.folder);
        EXPECT_EQ(is_file(c.path), c.file);
    }
    EXPECT_EQ(names_in(folder_), (std::vector<std::string>{"dangling", "fifo", "file", "folder", "link"}));
    expect_error(Exit::storage, path("file") + ": cannot list: Not a directory", [&] { names_in(path("file")); });
}

TEST_F(Files, SaysWhyAPathCannotBeLookedUp) {
    std::filesystem::create_symlink("circle", path("circle"));
    for (const auto look : {path_exists, is_folder, is_file})
        expect_error(Exit::storage, path("circle") + ": cannot look up: Too many levels of symbolic links",
                     [&] { look(path("circle")); });
    // A user without rights: the test may run as root.
    make_folders(path("closed"));
    spill(path("closed/file"), "");
    ASSERT_EQ(::chmod(path("closed").c_str(), 0), 0);
    const int result = exit_of_child([&] {
        if (::geteuid() == 0 && ::setuid(65534) != 0) return 0;
        expect_error(Exit::storage, path("closed/file") + ": cannot look up: Permission denied",
                     [&] { path_exists(path("closed/file")); });
        return testing::Test::HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(result, 0);
    ::chmod(path("closed").c_str(), 0700);
}

TEST_F(Files, ReadsAStreamIfToldTo) {
    ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
    std::jthread writer([&] { std::ofstream(path("fifo")) << std::string(100'000, 'x'); });
    EXPECT_EQ(read_file(path("fifo"), 100'000, Readable::streams), std::string(100'000, 'x'));
    EXPECT_EQ(read_file("/dev/null", 10, Readable::streams), "");
    expect_error(Exit::data, "/dev/zero: ", [&] { read_file("/dev/zero", 1000, Readable::streams); });
}

TEST_F(Files, ReadsPieces) {
    spill(path("a"), "0123456789");
    const InputFile file(path("a"));
    EXPECT_EQ(file.size(), 10u);
    std::string piece(4, ' ');
    file.read_at(6, piece.data(), 4);
    EXPECT_EQ(piece, "6789");
    expect_error(Exit::data, "ends at byte 10, expected 1 more", [&] { file.read_at(7, piece.data(), 4); });
}

/// What often lies in the place of a file of a model is named.
TEST_F(Files, StandInsAreNamed) {
    const std::pair<std::string, const char*> cases[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, not the file itself"},
        {std::string("\x1F\x8B\x08\0\0\0\0\0\0\0", 10), "compressed by gzip; unpack it"},
        {"PK\x03\x04 and more", "a zip archive; unpack it"},
        {"<!DOCTYPE html><html>404</html>", "a web page"},
    };
    for (const auto& [content, part] : cases) {
        spill(path("model"), content);
        const std::string expected = path("model") + ": " + part;
        expect_error(Exit::data, expected, [&] { (void)read_json_file(path("model")); });
        expect_error(Exit::data, expected, [&] { SafetensorsReader reader(path("model")); });
        expect_error(Exit::data, expected, [&] { GgufReader reader(path("model")); });
    }
}

TEST_F(Files, ReplacesAtomically) {
    write_file_atomically(path("a"), "first");
    write_file_atomically(path("a"), "second");
    EXPECT_EQ(slurp(path("a")), "second");
    EXPECT_EQ(listing(folder_), "a");
    expect_error(Exit::storage, "none/a.tmp-", [&] { write_file_atomically(path("none/a"), "x"); });
    std::filesystem::create_directories(path("taken/in"));
    expect_error(Exit::storage, "taken: cannot replace: ", [&] { write_file_atomically(path("taken"), "x"); });
    EXPECT_EQ(listing(folder_), "a taken") << "no temporary file remains";
}

TEST_F(Files, NewFileIsNew) {
    spill(path("a"), "mine");
    expect_error(Exit::storage, "a: cannot create: File exists", [&] { OutputFile file(path("a")); });
    EXPECT_EQ(slurp(path("a")), "mine");
    { OutputFile(path("b")).write("half"); }
    EXPECT_FALSE(exists("b")) << "not closed, so not finished";
}

TEST_F(Files, WritesThroughInterruptionsAndShortWrites) {
    const std::string content(1000, 'y');
    shim_.arm({.stutter = true});
    write_file_atomically(path("a"), content);
    shim_.disarm();
    EXPECT_GT(shim_.calls().size(), 200u) << "the shim was used";
    EXPECT_EQ(slurp(path("a")), content);
}

// A killed process leaves the old file or the new one, complete.
TEST_F(Files, ReplaceKilledAtEveryCall) {
    bool replaced = false;
    for (int n = 0;; ++n) {
        spill(path("a"), "old");
        const int status = kill_at(n, [&] { write_file_atomically(path("a"), "new"); });
        const std::string found = slurp(path("a"));
        EXPECT_TRUE(found == "old" || found == "new") << n << ": " << found;
        replaced |= found == "new" && status != 0;
        if (status == 0) {
            EXPECT_EQ(n, 5) << "open, write, fsync, rename, fsync";
            EXPECT_EQ(found, "new");
            break;
        }
        ASSERT_EQ(status, killed);
    }
    EXPECT_TRUE(replaced) << "killed after the rename as well";
}

TEST_F(Files, CommitKilledAtEveryCall) {
    bool before = false, behind = false;
    for (int n = 0;; ++n) {
        const int status = kill_at(n, [&] { commit_folder(); });
        EXPECT_EQ(exists("final"), whole()) << "killed at call " << n;
        if (status == 0) {
            EXPECT_TRUE(whole());
            break;
        }
        ASSERT_EQ(status, killed) << n;
        before |= !exists("final");
        behind |= exists("final");
        std::filesystem::remove_all(path("final"));
    }
    EXPECT_TRUE(before && behind) << "killed on both sides of the rename";
}

TEST_F(Files, CommitFailsAtEveryCall) {
    for (int n = 0;; ++n) {
        shim_.arm({.fail_at = n, .error = n % 2 ? EIO : ENOSPC});
        const std::optional<std::string> error = [&]() -> std::optional<std::string> {
            try {
                commit_folder();
                return {};
            } catch (const Error& e) {
                EXPECT_EQ(e.exit(), Exit::storage);
                return e.what();
            }
        }();
        shim_.disarm();
        if (!error) break;
        EXPECT_NE(error->find(n % 2 ? "Input/output error" : "No space left on device"), std::string::npos) << *error;
        EXPECT_NE(error->find(folder_), std::string::npos) << *error;
        const bool is_fsync = shim_.failed().starts_with("fsync");
        EXPECT_EQ(is_fsync ? shim_.repeats() : 0, 0) << "tried again: " << shim_.failed();
        EXPECT_EQ(exists("final"), whole());
        EXPECT_EQ(listing(folder_), exists("final") ? "final" : "") << "nothing temporary remains after " << *error;
        std::filesystem::remove_all(path("final"));
    }
    EXPECT_GT(shim_.calls().size(), 10u);
    EXPECT_TRUE(whole());
}

// Every file and folder is fsynced before the rename, and the parent folder after it.
TEST_F(Files, CommitSyncsInOrder) {
    shim_.arm({});
    commit_folder();
    shim_.disarm();
    const auto place = [&](const std::string& call) {
        return std::ranges::find(shim_.calls(), call) - shim_.calls().begin();
    };
    const std::string temporary = fmt::format("{}.tmp-{}", path("final"), getpid());
    const auto renamed = place("rename " + temporary + " " + path("final"));
    ASSERT_LT(renamed, std::ssize(shim_.calls()));
    for (const char* name : {"", "/one", "/sub", "/sub/two"})
        EXPECT_LT(place("fsync " + temporary + name), renamed) << name;
    EXPECT_GT(place("write " + temporary + "/one"), place("mkdir " + temporary));
    EXPECT_EQ(place("fsync " + folder_), renamed + 1);
}

TEST_F(Files, CommitOverwritesNothing) {
    std::filesystem::create_directory(path("final"));
    spill(path("final/mine"), "mine");
    expect_error(Exit::storage, "final: already exists", [&] { FolderCommit commit(path("final/")); });
    std::filesystem::remove_all(path("final"));
    {
        FolderCommit commit(path("final"));
        spill(commit.folder() + "/new", "new");
        std::filesystem::create_directory(path("final"));
        spill(path("final/mine"), "mine");
        expect_error(Exit::storage, "final: cannot rename", [&] { commit.commit(); });
    }
    EXPECT_EQ(listing(folder_), "final");
    EXPECT_EQ(listing(path("final")), "mine");
}

// The temporary folder left by a dead process with our pid is not reused.
TEST_F(Files, CommitAvoidsLeftovers) {
    const std::string leftover = fmt::format("{}.tmp-{}", path("final"), getpid());
    std::filesystem::create_directory(leftover);
    spill(leftover + "/stale", "stale");
    commit_folder();
    EXPECT_EQ(listing(path("final")), "one sub");
    EXPECT_TRUE(std::filesystem::exists(leftover));
}

TEST_F(Files, RemoveKilledAtEveryCall) {
    int status = 1;
    for (int n = 0; status != 0; ++n) {
        // An interrupted removal leaves nothing under the final name.
        for (const auto& entry : std::filesystem::directory_iterator(folder_))
            std::filesystem::remove_all(entry.path());
        commit_folder();
        status = kill_at(n, [&] { remove_folder(path("final")); });
        EXPECT_TRUE(!exists("final") || whole()) << n;
    }
    EXPECT_FALSE(exists("final"));
    EXPECT_EQ(listing(folder_), "");
    expect_error(Exit::storage, "final: cannot rename for deletion: No such file",
                 [&] { remove_folder(path("final")); });
}

// A full disk, simulated by the file size limit: exit code 7, no signal, and the old content is intact.
TEST_F(Files, DiskFull) {
    spill(path("a"), "old");
    const int status = exit_of_child([&] {
        const rlimit limit{100'000, 100'000};
        setrlimit(RLIMIT_FSIZE, &limit);
        return run_program("test", [&] {
            write_file_atomically(path("small"), std::string(100'000, 'x'));
            expect_error(Exit::storage, "cannot write: File too large",
                         [&] { write_file_atomically(path("a"), std::string(100'001, 'x')); });
            if (testing::Test::HasFailure()) return 1;
            FolderCommit commit(path("final"));
            OutputFile file(commit.folder() + "/one");
            file.write(std::string(100'001, 'x'));
            return 0;
        });
    });
    EXPECT_EQ(status, 7);
    EXPECT_EQ(slurp(path("a")), "old");
    EXPECT_EQ(listing(folder_), "a small");
}

TEST_F(Files, Sha256) {
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const std::string million(1'000'000, 'a');  // the long test vector of FIPS 180
    EXPECT_EQ(sha256(million), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    Sha256 pieces;
    for (size_t begin = 0; begin < million.size(); begin += 7777)
        pieces.update(million.data() + begin, std::min<size_t>(7777, million.size() - begin));
    EXPECT_EQ(pieces.hex(), sha256(million));
    spill(path("a"), million + million + million);
    EXPECT_EQ(sha256_file(path("a")), sha256(million + million + million));
    expect_error(Exit::data, "cannot open", [&] { sha256_file(path("b")); });
}

TEST_F(Files, LockHasOneHolder) {
    {
        const FolderLock lock(folder_);
        const std::string message =
            expect_error(Exit::config, folder_ + ": in use by process ", [&] { FolderLock second(folder_); });
        EXPECT_NE(message.find(fmt::format("process {} on ", getpid())), std::string::npos) << message;
        EXPECT_EQ(exit_of_child([&] {
                      FolderLock second(folder_);
                      return 0;
                  }),
                  static_cast<int>(Exit::config));
    }
    const FolderLock again(folder_);
    expect_error(Exit::storage, "none/.lock: cannot create", [&] { FolderLock lock(path("none")); });
}

TEST_F(Files, LockOfADeadProcessIsFree) {
    EXPECT_EQ(exit_of_child([&] {
                  new FolderLock(folder_);  // never released
                  return 0;
              }),
              0);
    const FolderLock lock(folder_);
}

}  // namespace
}  // namespace colonnade
