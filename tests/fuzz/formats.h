#pragma once
// The formats of other people's files, for fuzzing: seeds, mutations, and the readers.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/fuzz/mutate.h"

namespace colonnade {

struct Format {
    std::string file;  ///< name of the mutated file, in a folder of its own
    std::vector<std::string> seeds;
    /// Reads the file, and what lies beside it. Returns, or throws an Error.
    std::function<void(const std::string& folder, const std::string& file)> read;
    Mutation structure = {};              ///< half of the mutations; may be empty
    std::vector<std::string> words = {};  ///< of a text format: a quarter of the mutations
    std::string beside = {};              ///< a folder whose files lie beside the mutated one; may be empty
    /// Makes the rest of the folder fit the mutated file (hashes), so that more than the first check is reached.
    std::function<void(const std::string& folder)> mend = {};
};

struct NamedFormat {
    std::string name;
    /// `scratch`: an empty folder that stays as long as the format is in use.
    std::function<Format(const std::string& scratch)> make;
    int64_t slowness = 1;  ///< fuzz --inputs N gives it N / slowness inputs
};

std::vector<NamedFormat> row_file_formats();        ///< formats_rows.cpp
std::vector<NamedFormat> text_formats_of_models();  ///< formats_text.cpp
std::vector<NamedFormat> model_formats();           ///< formats_model.cpp
std::vector<NamedFormat> run_formats();             ///< formats_run.cpp

inline std::vector<NamedFormat> all_formats() {
    std::vector<NamedFormat> all;
    for (const auto& some : {row_file_formats(), text_formats_of_models(), model_formats(), run_formats()})
        all.insert(all.end(), some.begin(), some.end());
    return all;
}

/// The contents of the files under tests/golden/<folder> whose path ends with `suffix`, without those over 64 KiB, by
/// their paths.
std::vector<std::string> golden_contents(const std::string& folder, const std::string& suffix);

/// A mutation of one of `pool`.
std::string mutated(const Format& format, const std::vector<std::string>& pool, size_t chosen, Random& random);

}  // namespace colonnade
