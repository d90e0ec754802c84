#pragma once
// Large files, written, hashed and read in pieces by several threads at once. A piece has at most 32 MiB and a SHA-256
// of its own, so that hashing is as parallel as the rest. Errors are those of engine/io/files.h; after an error the
// other threads stop, and the first error is thrown.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/device/tensor.h"
#include "engine/io/files.h"

namespace colonnade {

/// Calls body(0) to body(count - 1) by as many threads, this one included. After an error the others stop at their next
/// call, and the first error is thrown.
void in_parallel(size_t count, int threads, const std::function<void(size_t)>& body);
/// Threads that read or write a file while nothing else runs.
int all_cores();

/// The numbers that a file holds from byte `begin` on: contiguous, in host memory.
struct FileRegion {
    uint64_t begin = 0;
    Tensor data;
};

/// Pieces follow each other from the first byte of a file to its last.
struct FilePiece {
    uint64_t bytes = 0;
    std::string sha256{};
};

/// An existing file, of which regions that do not overlap are overwritten.
class FilledFile {
  public:
    FilledFile(const std::string& path, int threads) : path_(path), threads_(threads), file_(path) {}
    /// Writes a region; returns when its memory is no longer needed. bf16 is stored as f32, which is exact. Hashes are
    /// those of the bytes in memory, so that an error on the way to the disk shows when the file is checked.
    void fill(const FileRegion& region);
    /// Hashes the other bytes and fsyncs; returns the pieces of the whole file.
    std::vector<FilePiece> finish();

  private:
    struct Done {
        uint64_t begin = 0;
        FilePiece piece{};
    };
    std::string path_;
    int threads_;
    OverwrittenFile file_;
    std::vector<Done> done_;
};

/// The pieces of a file as it is.
std::vector<FilePiece> hash_pieces(const std::string& path, int threads);
/// Throws Exit::data, with `advice` at the end, if a piece has another hash. The pieces must be as long as the file.
void check_pieces(const std::string& path, const std::vector<FilePiece>& pieces, const std::string& advice);
/// Fills the tensors of `regions` from the file.
void read_regions(const std::string& path, const std::vector<FileRegion>& regions);

}  // namespace colonnade
