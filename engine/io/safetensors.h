#pragma once
// safetensors (https://github.com/huggingface/safetensors): reader that trusts no number in the header, and writer.
// Single files and sharded folders (model.safetensors.index.json).
//
// A file is: header length (u64, little-endian), header (JSON: name -> dtype, shape, data_offsets), data. The reader
// accepts a file only where the spans cover the data once, from its first byte to its last, and every span is as long
// as its shape says.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade {

/// "[2, 3]"
std::string shape_text(const std::vector<int64_t>& shape);

struct TensorInfo {
    std::string name;
    std::string stored;    ///< dtype as the file spells it: "BF16", "F8_E4M3", ...
    bool readable = true;  ///< false: a dtype of the format that read() refuses; `dtype` then means nothing
    DType dtype = DType::f32;
    std::vector<int64_t> shape;
    std::string file;             ///< full path of the file that holds it
    uint64_t begin = 0, end = 0;  ///< byte span within the file, absolute
    int64_t numel() const;
};

class SafetensorsReader {
  public:
    /// A .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. Throws Exit::data for
    /// every malformed header: see tests/engine/io/safetensors_test.cpp for the list.
    explicit SafetensorsReader(const std::string& path);
    /// In the order of their data, shard after shard.
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    const TensorInfo* find(const std::string& name) const;
    /// Reads the elements into contiguous CPU memory in bounded pieces: any float type to f32 or f64, every type to
    /// itself. The element counts must be equal; the caller has compared shapes. Exit::data for any other dtype.
    void read(const TensorInfo& info, const Tensor& into) const;
    /// __metadata__ of the file, or of all shards together.
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

  private:
    std::vector<TensorInfo> tensors_;
    std::map<std::string, size_t> index_;
    std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
    std::string name;
    Tensor tensor;               ///< contiguous
    std::vector<int64_t> shape;  ///< as written (rank may differ from the view's)
};
/// Writes into `folder`: model.safetensors, or shards of at most `shard_bytes` with their index. f32 and f64 elements
/// are stored as `stored` (f32, f16, bf16; f64 only as f32), all others as they are. Always writes __metadata__
/// {"format": "pt"}. Not atomic by itself: write into a FolderCommit.
void write_safetensors(const std::string& folder, const std::vector<NamedTensor>& tensors, DType stored = DType::f32,
                       size_t shard_bytes = size_t{5} << 30);
/// One file of any name; it must not exist.
void write_safetensors_file(const std::string& path, const std::vector<NamedTensor>& tensors,
                            DType stored = DType::f32);

}  // namespace colonnade
