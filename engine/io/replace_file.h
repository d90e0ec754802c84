#pragma once

#include <string>
#include <string_view>

namespace colonnade {

/// Replaces a file atomically, but not durably: a power cut may leave the old file or an empty one. For what can be
/// made again; engine/io/files.h has what must last. Throws Exit::storage.
void replace_file(const std::string& path, std::string_view content);

}  // namespace colonnade
