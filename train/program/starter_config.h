#pragma once
// A config to start from: the keys that people change, with the values that suit a model and its data, each under a
// comment from the table of keys. `colonnade init` writes it, and it runs as it is.

#include <string>
#include <vector>

namespace colonnade {

struct StarterRequest {
    std::string model;              ///< a folder, a GGUF file, or a name on a hub
    std::vector<std::string> data;  ///< files, folders, globs, names on a hub
};

struct StarterConfig {
    std::string yaml{};
    std::vector<std::string> notices{};  ///< one line each, for the user
};

/// Looks at the first rows of the data for the stage and for max_length. Throws Exit::config for names that are no model
/// and data, Exit::data for what cannot be read.
StarterConfig starter_config(const StarterRequest& request);

}  // namespace colonnade
