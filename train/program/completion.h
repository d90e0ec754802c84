#pragma once
// What can follow the words of a command line. The scripts of the shells are a few lines that call `colonnade complete`,
// so that all of them offer the same: commands, options, keys of the config and their values, files by their endings,
// and the models and data sets in the hub's cache.

#include <string>
#include <vector>

namespace colonnade {

struct Candidate {
    std::string text;   ///< the whole word; one that ends in '/' or '=' goes on
    std::string about;  ///< may be empty
};

/// `words`: what follows the program's name; the last one, which may be empty, is being typed.
std::vector<Candidate> complete(const std::vector<std::string>& words);

/// The script for bash, zsh or fish.
std::string completion_script(const std::string& shell);

}  // namespace colonnade
