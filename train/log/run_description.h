#pragma once
// What a log says of a run besides its numbers.

#include <string>
#include <utility>
#include <vector>

namespace colonnade {

struct RunDescription {
    std::string project, name;
    std::vector<std::pair<std::string, std::string>> config;  ///< keys and their values as YAML
    std::vector<std::pair<std::string, std::string>> texts;   ///< titles and Markdown
};

}  // namespace colonnade
