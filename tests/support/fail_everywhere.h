#pragma once
// Fails one call of the file system after another, until a body needs no more calls.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>

#include "tests/support/expect_error.h"
#include "tests/support/faulty_files.h"

namespace colonnade {

/// `usual`, or 1 if COLONNADE_EVERY_CALL is set: for a long run.
inline int stride(int usual) {
    return std::getenv("COLONNADE_EVERY_CALL") ? 1 : usual;
}

struct FailedCalls {
    int64_t errors = 0;               ///< calls whose failure ended the body by an Error
    std::set<std::string> kinds{};    ///< of those calls: "write", "fsync", ...
    std::set<std::string> ignored{};  ///< calls whose failure did not
};

/// For n = 0, `step`, 2 `step`, ...: runs `prepare`, then `body` while call n fails, by turns of a disk error and a full
/// disk, then `check`, which is told whether the body returned. An Error must have exit code 7, name a path below
/// `folder` and the system's text; and no fsync is tried again. Reads count too.
inline FailedCalls fail_everywhere(const std::string& folder, const std::function<void()>& prepare,
                                   const std::function<void()>& body, const std::function<void(bool returned)>& check,
                                   int step = 1) {
    FailedCalls result;
    FaultyFiles files;
    for (int n = 0;; n += step) {
        prepare();
        const int error = n / step % 2 == 0 ? EIO : ENOSPC;
        bool returned = false;
        {
            const ReplacedFileSystem replaced(files);
            files.arm({.fail_at = n, .error = error, .reads = true});
            try {
                body();
                returned = true;
            } catch (const Error& e) {
                const std::string what = e.what();
                EXPECT_EQ(e.exit(), Exit::storage) << what << "\n  after " << files.failed();
                EXPECT_NE(what.find(folder), std::string::npos) << what << "\n  after " << files.failed();
                EXPECT_NE(what.find(std::strerror(error)), std::string::npos) << what << "\n  after " << files.failed();
            } catch (const std::exception& e) {
                ADD_FAILURE() << "not an Error, but " << e.what() << "\n  after " << files.failed();
            }
            files.disarm();
        }
        if (files.failed().empty()) {
            EXPECT_TRUE(returned) << "failed without a failing call";
            check(true);
            return result;
        }
        const testing::ScopedTrace trace(__FILE__, __LINE__, fmt::format("call {}: {}", n, files.failed()));
        const std::string kind = files.failed().substr(0, files.failed().find(' '));
        // If the deletion of an old checkpoint was only warned about, the folder is fsynced for later files.
        const bool warned = returned && std::filesystem::is_directory(files.failed().substr(kind.size() + 1));
        EXPECT_EQ(kind == "fsync" && !warned ? files.repeats() : 0, 0) << "an fsync is tried again";
        result.errors += !returned;
        if (returned)
            result.ignored.insert(files.failed());
        else
            result.kinds.insert(kind);
        check(returned);
        if (testing::Test::HasFailure()) return result;  // the others would say the same
    }
}

}  // namespace colonnade
