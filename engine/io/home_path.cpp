#include "engine/io/home_path.h"

#include <cstdlib>

#include "engine/device/error.h"

namespace colonnade {

std::string expand_home(const std::string& path) {
    if (!path.starts_with("~/")) return path;
    const char* home = std::getenv("HOME");
    if (!home || !*home) fail(Exit::config, "{}: HOME is not set", path);
    return home + path.substr(1);
}

}  // namespace colonnade
