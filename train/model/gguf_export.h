#pragma once
// A model as llama.cpp's files describe it: the other direction of train/model/gguf_model.h.
//
// llama.cpp loads a file that lacks a key of the rotary embedding, or whose q and k are in another order, without a word
// and computes wrong logits. tests/llama_cpp/check_export.py therefore compares logits with those of a llama.cpp.

#include <string>
#include <vector>

#include "engine/io/gguf_writer.h"
#include "train/model/parameters.h"

namespace colonnade {

/// general.architecture: Mistral's is "llama".
const char* gguf_architecture(Architecture architecture);

/// Adds the architecture and its keys. Throws Exit::data, naming `where` and the setting of config.json, for a model that
/// llama.cpp's architecture has no rule for: a score head, Llama 3's scaling for Qwen, yarn with
/// truncate false or betas of its own, biases of Qwen3, a Qwen2 whose heads are not as wide as the model. Returns a line for what it does otherwise.
std::vector<std::string> add_model_pairs(const ModelConfig& config, const std::string& where, GgufPairs& pairs);

/// What Llama 3's scaling divides each frequency by, [head_dim / 2], for the tensor rope_freqs.weight; empty for other
/// kinds, which have keys.
std::vector<float> rope_divisors(const ModelConfig& config);

/// The type in which a parameter is stored if matrices are to be `wanted`: vectors are F32, and matrices whose rows are
/// not a multiple of its block F16.
const GgufType& gguf_type_of(const std::vector<int64_t>& shape, const GgufType& wanted);

/// Heads whose rows the architecture stores as neighbouring pairs, for q and k and their biases of Llama and Mistral; 0
/// for all others.
int64_t interleaved_heads(const ModelConfig& config, Role role);
/// Rows (i, i + head_dim / 2) of each head become rows (2i, 2i + 1): what GgufWeights::read() undoes. A vector has rows
/// of one element. `values`: contiguous, f32, in host memory.
void interleave_heads(const Tensor& values, int64_t heads, int64_t head_dim);

}  // namespace colonnade
