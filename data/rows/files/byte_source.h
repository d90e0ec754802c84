#pragma once
// ByteSource: the bytes of a data file, decompressed if the file is gzip (RFC 1952, any number of members) or zstd
// (RFC 8878, any number of frames). Memory: a few hundred KiB, for zstd the window of the file, at most 128 MiB.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/io/files.h"

namespace colonnade {

/// Decompresses a stream piece by piece.
class Inflater {
  public:
    struct Step {
        size_t consumed = 0, produced = 0;
        const char* error = nullptr;
    };
    virtual ~Inflater() = default;
    virtual Step step(std::string_view in, char* out, size_t room) = 0;
    /// Nothing of a member or frame is open: the file may end here.
    virtual bool complete() const = 0;
    virtual const char* name() const = 0;
};

class ByteSource {
  public:
    /// Opens the file. Throws Exit::data if it is missing, a folder, or of a kind that holds no rows we can read.
    explicit ByteSource(const std::string& path);

    const std::string& path() const { return file_.path(); }
    /// The first bytes, decompressed; a short file has fewer than 512.
    std::string_view head() const { return head_; }
    /// Reads the next bytes, head included; 0 at the end. Throws Exit::data for damaged and truncated archives;
    /// `after` describes how far the caller has read.
    size_t read(char* into, size_t bytes, const std::string& after = "");
    /// Share of the file that is used, if `unused` bytes of those read are not.
    double progress(size_t unused) const;

  private:
    size_t read_file(char* into, size_t bytes);
    size_t inflate(char* into, size_t bytes, const std::string& after);
    void fill_head();

    InputFile file_;
    uint64_t file_bytes_ = 0;  ///< read so far
    std::unique_ptr<Inflater> inflater_;
    std::string in_;  ///< compressed bytes
    size_t in_begin_ = 0;
    bool end_of_file_ = false;
    std::string head_;
    size_t head_read_ = 0;
};

}  // namespace colonnade
