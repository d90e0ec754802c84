#pragma once
// Finds what a chat template leaves out. Templates skip roles, tools and keys that they do not know; nobody would notice
// in training. The origins of the rendered bytes show it.

#include <optional>
#include <string>

#include "data/text/chat_template.h"

namespace colonnade {

/// Names the first part of a chat that its rendered text lacks, such as "message 0, from role 'system'"; nothing if all
/// is there. White space counts for nothing. A template that writes reasoning at all may leave out that of earlier
/// answers than the last, as many do on purpose.
std::optional<std::string> first_loss(const Chat& chat, const jinja::Rendered& rendered, bool writes_reasoning);

/// Whether the text holds reasoning of a message.
bool has_reasoning_of(size_t message, const jinja::Rendered& rendered);

}  // namespace colonnade
