#pragma once
// Where tests find the project's files and programs.

#include <string>

namespace colonnade {

std::string project_file(const std::string& path);  ///< project_file("docs/config.md")
std::string golden_file(const std::string& path);   ///< under tests/golden
std::string program_path(const std::string& name);  ///< program_path("train")

}  // namespace colonnade
