#pragma once
// safetensors (https://github.com/huggingface/safetensors): reader that trusts no number in the header, and writer. Single
// files and sharded folders (model.safetensors.index.json).

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace colonnade {

struct TensorInfo {
    std::string name;
    DType dtype = DType::f32;
    std::vector<int64_t> shape;
    std::string file;           ///< full path of the file that holds it
    uint64_t begin = 0, end = 0;///< byte span within the file, absolute
    int64_t numel() const;
};

class SafetensorsReader {
  public:
    /// A .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. Throws Exit::data for every
    /// malformed header: see tests/safetensors_test.cpp for the list.
    explicit SafetensorsReader(const std::string& path);
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    const TensorInfo* find(const std::string& name) const;
    /// Reads the elements converted to `into`'s dtype (f32 or f64; integers only to their own dtype) in bounded pieces.
    /// Shape must match in element count; the caller has compared shapes.
    void read(const TensorInfo& info, const Tensor& into) const;
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
/// Writes into `folder`: model.safetensors, or shards of at most `shard_bytes` with their index. Elements are stored as
/// `stored` (f32, f16, bf16 with round to nearest even; i32 and i64 stay). Always writes __metadata__ {"format": "pt"}. Not atomic by itself: write into a
/// FolderCommit.
void write_safetensors(const std::string& folder, const std::vector<NamedTensor>& tensors, DType stored = DType::f32,
                       size_t shard_bytes = size_t{5} << 30);
/// One file of any name.
void write_safetensors_file(const std::string& path, const std::vector<NamedTensor>& tensors, DType stored = DType::f32);

}  // namespace colonnade
