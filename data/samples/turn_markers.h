#pragma once
// Text that looks like a chat rendered with a template: <|im_start|>, <|user|>, <start_of_turn>, [INST], <<SYS>>, <｜User｜>.

#include <string_view>

namespace colonnade {

/// Whether the text has a marker that some chat template writes.
bool has_turn_marker(std::string_view text);

}  // namespace colonnade
