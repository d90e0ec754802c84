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

std::string abbreviate_home(const std::string& path) {
    const char* home = std::getenv("HOME");
    const std::string folder = home && *home ? std::string(home) + "/" : "";
    return folder.size() > 1 && path.starts_with(folder) ? "~/" + path.substr(folder.size()) : path;
}

}  // namespace colonnade
