#pragma once
// The tokenizer and chat template of a GGUF file, as the files that a Hugging Face folder has of them.

#include "engine/io/gguf.h"
#include "engine/io/json.h"

namespace colonnade {

struct GgufTokenizer {
    Json tokenizer;  ///< a tokenizer.json, for HuggingFaceTokenizer
    Json config;     ///< a tokenizer_config.json: special tokens by name and the chat template, or several by name
};

/// Supports tokenizer.ggml.model "gpt2" (byte-level BPE) and "llama" (SentencePiece BPE). A GGUF file names its
/// pre-tokenizer (tokenizer.ggml.pre) and does not contain it: the splits, Qwen's NFC and SmolLM2's single digits
/// come from a table, after the models' own tokenizer.json. transformers 5.24 leaves the last two out. Throws
/// Exit::data for a name that is not in the table, damaged lists, and models that sentencepiece_export.h has an
/// obstacle for; the error names the key and the way out: tokenizer_name_or_path.
GgufTokenizer gguf_tokenizer(const GgufReader& file);

}  // namespace colonnade
