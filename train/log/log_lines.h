#pragma once
// LogLines: the complete lines of a log, which may be longer than memory and may still grow.

#include <string>
#include <string_view>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {

class LogLines {
  public:
    explicit LogLines(const std::string& path) : file_(path) {}

    /// The next line without its line break, valid until the next call. False at the end; what is appended later can be
    /// read then. A last line without a line break is incomplete: the run is writing it, or was killed meanwhile. Throws
    /// Exit::data for a line longer than JSON may be.
    bool next(std::string_view& line) {
        for (size_t searched = begin_;;) {
            const size_t end = block_.find('\n', searched);
            if (end != block_.npos) {
                line = std::string_view(block_).substr(begin_, end - begin_);
                passed_ += end + 1 - begin_;
                begin_ = end + 1;
                return true;
            }
            block_.erase(0, begin_);
            begin_ = 0;
            searched = block_.size();
            if (searched > limits::json_bytes)
                fail(Exit::data, "{}: a line of more than {} bytes: no log of metrics", file_.path(),
                     limits::json_bytes);
            block_.resize(searched + block_bytes);
            block_.resize(searched + file_.read(block_.data() + searched, block_bytes));
            if (block_.size() == searched) return false;
        }
    }
    uint64_t passed() const { return passed_; }  ///< bytes of the lines that next() has returned

  private:
    static constexpr size_t block_bytes = size_t{1} << 18;
    InputFile file_;
    std::string block_;
    size_t begin_ = 0;
    uint64_t passed_ = 0;
};

}  // namespace colonnade
