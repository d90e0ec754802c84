#pragma once
// Paths in the home folder, and what the environment says.

#include <string>

namespace colonnade {

/// The value of an environment variable; empty if it is not set.
std::string environment(const char* name);

/// `~/...` with HOME in place of `~`; anything else as it is. Throws Exit::config if HOME is not set.
std::string expand_home(const std::string& path);
/// The reverse, for messages: `~/...` for a path in the home folder.
std::string abbreviate_home(const std::string& path);

}  // namespace colonnade
