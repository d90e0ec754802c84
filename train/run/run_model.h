#pragma once
// The model and the encoder of a run, by its config.

#include <memory>

#include "data/samples/encode.h"
#include "train/config/config.h"

namespace colonnade {

/// The tokenizer of a config; null if all rows are pre-tokenised and no tokenizer can be read.
std::shared_ptr<const Tokenizer> load_tokenizer(const Config& config);

/// Renders and tokenises rows as the config says. `tokenizer` may be null for pre-tokenised rows.
std::shared_ptr<const Encoder> make_encoder(const Config& config, std::shared_ptr<const Tokenizer> tokenizer,
                                            int64_t vocab_size);

/// The model in the config's folder, or the one of its shape. Throws Exit::config for a model that the stage cannot
/// train.
ModelConfig model_of_run(const Config& config, const Tokenizer* tokenizer);

/// Picks a token id to pad the rows of a reward model. It never ends an answer, because transformers reads the score of
/// a row at its last token that is not padding. Takes the model's or the tokenizer's pad token if it qualifies, else
/// the unknown token, else the first id that does.
int64_t reward_pad_token(const ModelConfig& model, const Encoder& encoder);

}  // namespace colonnade
