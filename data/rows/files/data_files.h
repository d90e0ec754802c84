#pragma once
// Data files of a data set, and the part of their rows that it takes.
//
// `path` is a file, a folder or a glob (* ? [abc], by glob(3)). Of a folder, and of folders inside it, every file is
// taken whose name ends in .jsonl, .ndjson, .json or .parquet, or in one of the first three and .gz or .zst; hidden
// files and the files that describe a data set (dataset_infos.json, ...) are not. Files are sorted by path, byte by
// byte.
//
// `split` is as in Hugging Face datasets: NAME or NAME[FROM:TO]. A file NAME-00000-of-00005.* belongs to the split
// NAME. Any other belongs to the split that its name says, or the nearest folder that says one, as a word between - . _
// space and digits: train or training; validation, valid, val or dev; test, testing, eval or evaluation. Files that say
// nothing belong to train. README.md of a folder may say it instead (data_card.h); then files that it does not name are
// left out. To train also belongs a single file that `path` names. FROM and TO are row numbers from 0 or whole
// percentages ("10%") of all rows; both may be negative (from the end) or missing. A percentage is rounded to the
// nearest row, halves to the even one.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/files/data_card.h"

namespace colonnade {

struct Split {
    struct Bound {
        int64_t value = 0;
        bool percent = false;
        int64_t of(int64_t rows) const;  ///< row number from 0 to rows
    };
    std::string name;  ///< train, validation, test, or any other name; empty: none was given
    std::optional<Bound> from, to;
    /// The name counts only if a folder has several splits; a single one is taken whatever its name is.
    bool if_several = false;

    bool needs_count() const;  ///< the range depends on the number of rows
};
constexpr const char* split_forms = "a split such as train, test[:1000] or train[10%:]";
/// Nothing if the text is not a split.
std::optional<Split> parse_split(std::string_view text);

/// The name of a file ends as those of data files do, and does not describe a data set.
bool is_data_file(std::string_view path);

struct DataFiles {
    std::vector<std::string> paths;     ///< at least one
    std::vector<std::string> left_out;  ///< what else lies in the folder, or matches the glob
};
/// Finds the files. Throws Exit::data if there are none, and for a folder with files of several splits if none is
/// chosen.
DataFiles find_data_files(const std::string& path, const Split& split);
/// The splits of the data files in a folder.
std::set<std::string> splits_of_folder(const std::string& path);

/// The same for a repository on a hub: the files that `inside`, a file, a folder or a glob in it, and the split mean, of
/// all paths that it lists. `name` is for messages, `card` what README.md of the repository says. Throws Exit::data also if the data files lie in several folders that
/// name no splits, since these are often different data.
std::vector<std::string> choose_data_files(const std::vector<std::string>& listed, const std::string& inside,
                                           const Split& split, const std::string& name,
                                           const std::vector<CardFiles>& card = {});

}  // namespace colonnade
