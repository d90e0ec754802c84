#include "tests/support/paths.h"

#include "engine/device/threads.h"

namespace colonnade {

/// Tests compute with the kernels of OpenBLAS that programs use.
[[maybe_unused]] static const bool settled = (settle_libraries(), true);

std::string project_file(const std::string& path) {
    return COLONNADE_SOURCES "/" + path;
}
std::string golden_file(const std::string& path) {
    return project_file("tests/golden/" + path);
}
std::string program_path(const std::string& name) {
    return COLONNADE_PROGRAMS "/" + name;
}

}  // namespace colonnade
