#pragma once
// The weights of a Hugging Face folder in safetensors, under its names. Matrices that are stored in fewer bits are widened
// when they are read:
//
//   bitsandbytes' 4 bits (nf4, fp4)   X.weight holds the codes, two in a byte, the first one in the high half; beside it
//                                     X.weight.absmax, .quant_map, with double quantisation .nested_absmax and
//                                     .nested_quant_map, and .quant_state.bitsandbytes__nf4 (JSON: shape, block sizes, ...)
//   fp8 by blocks                     X.weight holds e4m3, X.weight_scale_inv the factor of each block; blocks have the
//                                     sizes of weight_block_size in config.json, 128 x 128 without
//
// A weight is code times scale in f32, rounded to the type that it was made from: that of the state, or bf16.

#include <map>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"

namespace colonnade {

class JsonKeys;

/// Throws Exit::data if the key quantization_config of a config.json names another way of storing weights. Returns a
/// notice for people, or nothing if there is no such key.
std::string check_quantization(const JsonKeys& config);

/// With the interface of SafetensorsReader.
class SafetensorsWeights {
  public:
    /// Throws Exit::data as SafetensorsReader does, and for a matrix in fewer bits whose parts are missing or misshapen.
    explicit SafetensorsWeights(const std::string& path);
    /// All tensors but the parts above; matrices in fewer bits have the shape that they are widened to.
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    const TensorInfo* find(const std::string& name) const;
    void read(const TensorInfo& info, const Tensor& into) const;

  private:
    struct FourBits {
        std::vector<int64_t> shape;
        int64_t block;
        float (*rounded)(float);   ///< to the type that the weights were made from
        int64_t nested_block = 0;  ///< 0: scales are stored as they are
        float offset = 0;          ///< added to scales with double quantisation
    };
    struct Blocks {
        int64_t rows = 128, columns = 128;
    };
    void find_four_bits(const TensorInfo& state);
    void find_blocks(const TensorInfo& scales, const Blocks& size);
    void require_part(const std::string& name, const std::string& stored, int64_t count) const;
    std::vector<float> floats(const std::string& name) const;
    void read_four_bits(const TensorInfo& info, const FourBits& how, const Tensor& into) const;
    void read_blocks(const TensorInfo& info, const Blocks& size, const Tensor& into) const;

    SafetensorsReader file_;
    std::map<std::string, FourBits> four_bits_;
    std::map<std::string, Blocks> blocks_;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, size_t> index_;
};

}  // namespace colonnade
