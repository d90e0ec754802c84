#pragma once
// The pre-tokenizers of byte-level BPE that a GGUF file names in tokenizer.ggml.pre. llama.cpp has the split of each name
// in its source (src/llama-vocab.cpp); the file does not contain it.

#include <span>
#include <string_view>

#include "engine/io/json.h"

namespace colonnade {

struct GgufPreTokenizer {
    enum class Extra { none, single_digits, nfc };
    std::string_view name;
    const std::string_view& pattern;  ///< of data/text/split_pattern.h
    Extra extra = Extra::none;
    bool ignore_merges = false, bos = false;  ///< unless tokenizer.ggml.add_bos_token says otherwise
};
/// The names for models of the architectures in train/model/gguf_model.h. Of several names for one split, the first is
/// the one to write.
std::span<const GgufPreTokenizer> gguf_pre_tokenizers();

/// The "pre_tokenizer" of a tokenizer.json.
Json pre_tokenizer_json(const GgufPreTokenizer& pre);

}  // namespace colonnade
