#include "engine/io/home_path.h"

#include <cstdlib>

#include "engine/device/error.h"

namespace colonnade {

std::string environment(const char* name) {
    const char* const value = std::getenv(name);
    return value ? value : "";
}

std::string expand_home(const std::string& path) {
    if (!path.starts_with("~/")) return path;
    const std::string home = environment("HOME");
    if (home.empty()) fail(Exit::config, "{}: HOME is not set", path);
    return home + path.substr(1);
}

std::string abbreviate_home(const std::string& path) {
    const std::string folder = environment("HOME") + "/";
    return folder.size() > 1 && path.starts_with(folder) ? "~/" + path.substr(folder.size()) : path;
}

}  // namespace colonnade
