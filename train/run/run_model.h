#pragma once
// The model and the encoder of a run, by its config.

#include <memory>

#include "data/samples/encode.h"
#include "data/text/text_folder.h"
#include "train/config/config.h"

namespace colonnade {

/// How a run turns text into tokens.
struct RunText {
    TextFolder folder{};  ///< without a tokenizer if all rows are pre-tokenised and none can be read
    std::shared_ptr<const ChatTemplate> chat_template{};  ///< null without a tokenizer
    std::vector<std::string> notices{};                   ///< which files decide
};
RunText load_text(const Config& config);
/// The templates of data sets that have their own; null entries: that of the config.
std::vector<std::shared_ptr<const ChatTemplate>> chat_templates(const Config& config, const RunText& text,
                                                                const std::vector<DatasetSpec>& datasets);

/// Renders and tokenises rows as the config says.
std::shared_ptr<const Encoder> make_encoder(const Config& config, const RunText& text, int64_t vocab_size);

/// The model in the config's folder, or the one of its shape, with rows for added tokens. Throws Exit::config for a model
/// that the stage cannot train, and for tokens whose rows would stay frozen.
ModelConfig model_of_run(const Config& config, const TextFolder& text);

/// Picks a token id to pad the rows of a reward model. It never ends an answer, because transformers reads the score of
/// a row at its last token that is not padding. Takes the model's or the tokenizer's pad token if it qualifies, else
/// the unknown token, else the first id that does.
int64_t reward_pad_token(const ModelConfig& model, const Encoder& encoder);

}  // namespace colonnade
