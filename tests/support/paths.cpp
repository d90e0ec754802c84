#include "tests/support/paths.h"

namespace colonnade {

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
