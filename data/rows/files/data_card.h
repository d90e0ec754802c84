#pragma once
// The part of a data set's README.md that says which files belong to which split: YAML between two lines `---`, as
// Hugging Face datasets reads it.
//
//     configs:
//     - config_name: default
//       data_files:
//       - {split: train, path: "data/train-*"}
//       - {split: test, path: ["test/a.jsonl", "test/b.jsonl"]}

#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

struct CardFiles {
    std::string split;    ///< empty: the names of the files say it
    std::string pattern;  ///< of paths inside the folder of README.md, with * ? [abc] and **
};

/// The files of the default config: the one with `default: true`, or named `default`, or the only one. Empty if README.md
/// has no configs, or several and no default. Throws Exit::data for YAML that cannot be read; `where` names the file.
std::vector<CardFiles> read_data_card(std::string_view readme, const std::string& where);

/// Whether a pattern means this file: by wildcards, or as a folder that it is in.
bool card_means(const std::string& pattern, const std::string& path);

}  // namespace colonnade
