#pragma once
// Which chat template an export writes.

#include "data/samples/encode.h"

namespace colonnade {

/// The template that replaces that of the model; null: that stays. chatml stands in for a missing one and is written if
/// the tokenizer knows its markers: else it rendered no chat.
const ChatTemplate* replacing_template(const Encoder& encoder);

}  // namespace colonnade
