#pragma once
// GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), the model files of llama.cpp: a reader that checks
// every number in the header.
//
// A file is: "GGUF", version (u32, 2 or 3), number of tensors and of pairs (u64 each); the pairs (key, type, value);
// the tensor table (name, dimensions, type, offset); padding to general.alignment; data. All numbers are
// little-endian. The reader accepts a file only if every count and length fits into the file, keys and names are
// unique, and the tensors follow each other in the data, each at the next multiple of the alignment. It never allocates
// memory by a number of the file before it has read the bytes that the number counts, and keeps at most 64 MiB of
// header.

#include <map>
#include <string>
#include <vector>

#include "engine/io/gguf_metadata.h"
#include "engine/io/safetensors.h"

namespace colonnade {

class GgufReader {
  public:
    /// Opens a .gguf file, or any shard of several files name-00001-of-00003.gguf. Throws Exit::data for every
    /// malformed header (tests/engine/io/gguf_test.cpp lists them).
    explicit GgufReader(const std::string& path);
    /// All tensors, in the order of their data, shard after shard. Shapes are row-major as in safetensors: the file
    /// stores them in the reverse order. `stored` is ggml's name of the type; `dtype` is f32 for quantised types.
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    const TensorInfo* find(const std::string& name) const;
    /// Reads the elements into contiguous CPU memory, on all threads: any float or supported quantised type into f32 or
    /// f64, every unquantised type into itself; any other dtype throws Exit::data. The element counts must be equal;
    /// the caller compares the shapes. Quantised elements are those of ggml bit for bit.
    void read(const TensorInfo& info, const Tensor& into) const;
    /// The pairs of the first shard.
    const GgufMetadata& metadata() const { return metadata_; }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    GgufMetadata metadata_;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, size_t> index_;
};

/// True for a file that begins with "GGUF", or whose name ends with .gguf.
bool is_gguf_file(const std::string& path);

}  // namespace colonnade
