#pragma once
// Writes GGUF files (engine/io/gguf.h): version 3, little-endian, data aligned to 32 bytes. A plan of all tensors gives
// the header. The elements follow, one tensor at a time, so that memory holds no more than one.

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/device/tensor.h"
#include "engine/io/files.h"
#include "engine/io/gguf_blocks.h"
#include "engine/io/gguf_metadata.h"

namespace colonnade {

/// The pairs of a file, in the order in which they were added; no key twice.
class GgufPairs {
  public:
    void integer(std::string_view key, int64_t value);  ///< as u32: 0 to 2^32 - 1
    void number(std::string_view key, double value);    ///< as f32
    void boolean(std::string_view key, bool value);
    void text(std::string_view key, std::string_view value);
    void integers(std::string_view key, const std::vector<int32_t>& values);
    void numbers(std::string_view key, const std::vector<float>& values);
    void texts(std::string_view key, const std::vector<std::string>& values);
    /// A value of another file.
    void copy(std::string_view key, const GgufValue& value);

    bool has(std::string_view key) const { return keys_.contains(std::string(key)); }
    uint64_t count() const { return keys_.size(); }
    const std::string& bytes() const { return bytes_; }

  private:
    void begin(std::string_view key, GgufKind kind);
    void begin_array(std::string_view key, GgufKind kind, size_t count);

    std::set<std::string> keys_;
    std::string bytes_;
};

struct GgufTensor {
    std::string name;
    std::vector<int64_t> shape;      ///< row-major; the file stores it in the reverse order
    const GgufType* type = nullptr;  ///< has an encoder; its block divides the rows
};

class GgufWriter {
  public:
    /// Writes the header under a temporary name in the folder of `path`.
    GgufWriter(const std::string& path, const GgufPairs& pairs, std::vector<GgufTensor> tensors);
    /// The elements of the next tensor, f32 in host memory; encoded on all threads. Throws Exit::numerics, naming the
    /// tensor, for elements that its type cannot hold.
    void write(const Tensor& elements);
    /// Every tensor is written: renames the file to `path`, which it replaces. A writer that is destroyed without it
    /// leaves nothing.
    void commit();

  private:
    std::string path_;
    std::vector<GgufTensor> tensors_;
    size_t next_ = 0;
    FileCommit commit_;
    OutputFile file_;
    std::vector<uint8_t> encoded_;
};

}  // namespace colonnade
