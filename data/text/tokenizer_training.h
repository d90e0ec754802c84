#pragma once
// Training of SentencePiece models.

#include <cstdint>
#include <string>
#include <vector>

namespace colonnade {

struct TokenizerTraining {
    std::vector<std::string> text_files;  ///< text with one sentence per line, or .jsonl: the texts of its rows
    std::string output;                   ///< writes <output>.model and a readable <output>.vocab (piece, tab, score)
    int32_t vocab_size = 8000;
    std::string model_type = "bpe";           ///< bpe | unigram
    std::vector<std::string> special_tokens;  ///< user-defined symbols, such as the chat template's markers
    int threads = 1;                          ///< for bpe; the result does not depend on it (unigram always uses 16)
};
/// Trains a SentencePiece model with identity normalisation, byte fallback, kept white space and split digits: decoding
/// returns the encoded text, except for U+2581, which SentencePiece uses for the space. Ids: unk 0, bos 1 (<s>), eos 2
/// (</s>), pad 3 (<pad>). Throws Exit::config for options that do not fit the text, Exit::data for bad text files.
void train_tokenizer(const TokenizerTraining& options);

}  // namespace colonnade
