#pragma once
// safetensors (https://github.com/huggingface/safetensors): a reader that checks every number in the header, and a
// writer, for single files and sharded folders (model.safetensors.index.json).
//
// A file is: header length (u64, little-endian), header (JSON: name -> dtype, shape, data_offsets), data. The reader
// accepts a file only if the spans cover the data exactly once, from the first byte to the last, and every span has the
// length that its shape requires.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/device/host_copy.h"

namespace colonnade {

/// "[2, 3]"
std::string shape_text(const std::vector<int64_t>& shape);

struct TensorInfo {
    std::string name;
    std::string stored;    ///< dtype as the file spells it: "BF16", "F8_E4M3", ...
    bool readable = true;  ///< false: a dtype that read() does not support; `dtype` is then undefined
    DType dtype = DType::f32;
    std::vector<int64_t> shape;
    std::string file;             ///< full path of the file with the data
    uint64_t begin = 0, end = 0;  ///< byte span within the file, absolute
    int64_t numel() const;
};

class SafetensorsReader {
  public:
    /// Opens a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. Throws Exit::data
    /// for every malformed header (tests/engine/io/safetensors_test.cpp lists them).
    explicit SafetensorsReader(const std::string& path);
    /// All tensors, in the order of their data, shard after shard.
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    const TensorInfo* find(const std::string& name) const;
    /// Reads the elements into contiguous CPU memory in bounded pieces: any float type into f32 or f64, every type into
    /// itself; any other dtype throws Exit::data. The element counts must be equal; the caller compares the shapes.
    void read(const TensorInfo& info, const Tensor& into) const;
    /// __metadata__ of the file, or merged from all shards.
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
    /// Given: `tensor` has no data until its file is written. Returns the data, in `tensor`'s dtype.
    std::function<HostCopy()> read{};

    HostCopy load() const { return read ? read() : HostCopy::of(nullptr, tensor); }
};
/// Writes model.safetensors into `folder`, or shards of at most `shard_bytes` and their index. f32 and f64 elements are
/// stored as `stored` (f32, f16; bf16, rounded like the weights of a run on a GPU: SplitFloat, engine/device/float16.h; f64
/// only as f32), all others unchanged. __metadata__ is {"format": "pt"}. Not
/// atomic by itself: write into a FolderCommit.
void write_safetensors(const std::string& folder, const std::vector<NamedTensor>& tensors, DType stored = DType::f32,
                       size_t shard_bytes = size_t{5} << 30);
/// Writes one file of any name, which must not exist.
void write_safetensors_file(const std::string& path, const std::vector<NamedTensor>& tensors,
                            DType stored = DType::f32);

}  // namespace colonnade
