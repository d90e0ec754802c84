#pragma once
// choose_template: finds the chat template that a config or a command line names.

#include <memory>
#include <string>

#include "data/text/text_folder.h"

namespace colonnade {

inline constexpr const char* own_template = "auto";

/// `choice`: auto (the folder's own template; chatml if it has none), a built-in name, the name of one of the folder's
/// templates, a Jinja file, or Jinja text. A folder's own template hands chats with tools to its "tool_use", if there is
/// one. Throws Exit::config for anything else.
std::shared_ptr<const ChatTemplate> choose_template(const TextFolder& folder, const std::string& choice,
                                                    ChatTemplate::Settings settings);

}  // namespace colonnade
