#include "data/rows/files/data_files.h"

#include <fmt/ranges.h>
#include <fnmatch.h>
#include <glob.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_entries = limits::data_files;

constexpr std::pair<std::string_view, std::string_view> split_words[] = {
    {"train", "train"},      {"training", "train"}, {"validation", "validation"},
    {"valid", "validation"}, {"val", "validation"}, {"dev", "validation"},
    {"test", "test"},        {"testing", "test"},   {"eval", "test"},
    {"evaluation", "test"},
};

std::string_view known_name(std::string_view split) {
    for (const auto& [word, known] : split_words)
        if (split == word) return known;
    return split;
}

/// The split that a file or folder name says; empty: none.
std::string_view split_of_name(std::string_view name) {
    // NAME-00000-of-00005: a shard
    const auto digits = [](std::string_view text) {
        return text.size() == 5 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    const size_t of = name.find("-of-");
    if (of != name.npos && of > 6 && name[of - 6] == '-' && digits(name.substr(of - 5, 5)) &&
        digits(name.substr(of + 4, 5)))
        return known_name(name.substr(0, of - 6));
    constexpr std::string_view between = "-._ 0123456789";
    for (size_t end = 0; end < name.size();) {
        const size_t begin = name.find_first_not_of(between, end);
        if (begin == name.npos) break;
        end = std::min(name.find_first_of(between, begin), name.size());
        for (const auto& [word, split] : split_words)
            if (name.substr(begin, end - begin) == word) return split;
    }
    return {};
}

/// The split of a file below `folder`.
std::string split_of(const fs::path& file, const fs::path& folder) {
    const fs::path inside = file.lexically_relative(folder);
    for (fs::path part = inside; !part.empty(); part = part.parent_path()) {
        const std::string name = part.filename();
        if (const std::string_view split = split_of_name(name); !split.empty()) return std::string(split);
    }
    return "train";
}

/// The split of a file by a card, or without one by names; empty if the card leaves it out.
std::string split_by(const std::vector<CardFiles>& card, const fs::path& file, const fs::path& folder) {
    if (card.empty()) return split_of(file, folder);
    const std::string inside = file.lexically_relative(folder);
    for (const CardFiles& part : card)
        if (card_means(part.pattern, inside))
            return part.split.empty() ? split_of(file, folder) : std::string(known_name(part.split));
    return "";
}

/// The folder of a glob, up to its first wildcard.
std::string folder_of_pattern(const std::string& path) {
    return path.substr(0, path.find_last_of('/', path.find_first_of("*?[")) + 1);
}

DataFiles files_of_folder(const std::string& path) {
    DataFiles files;
    std::error_code error;
    size_t entries = 0;
    for (fs::recursive_directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
        if (++entries > most_entries) fail(Exit::data, "{}: more than {} files and folders", path, most_entries);
        const std::string name = at->path().filename();
        std::error_code unknown;  // a link to nothing is a file, which cannot be opened
        const bool folder = at->is_directory(unknown);
        if (folder && !name.starts_with('.') && !at->is_symlink(unknown)) continue;
        if (folder) at.disable_recursion_pending();
        (!folder && is_data_file(name) ? files.paths : files.left_out).push_back(at->path());
    }
    if (error) fail(Exit::data, "{}: cannot read the folder: {}", path, error.message());
    std::sort(files.paths.begin(), files.paths.end());
    std::sort(files.left_out.begin(), files.left_out.end());
    if (files.paths.empty())
        fail(Exit::data,
             "{}: the folder has no data file; expected files that end in .jsonl, .ndjson, .json (also with .gz or "
             ".zst) or .parquet{}{}",
             path, files.left_out.empty() ? "" : ", found ", files.left_out.empty() ? "" : files.left_out.front());
    return files;
}

DataFiles files_of_glob(const std::string& path) {
    glob_t found{};
    const int result = ::glob(path.c_str(), GLOB_ERR, nullptr, &found);
    DataFiles files;
    for (size_t i = 0; result == 0 && i < found.gl_pathc; ++i) {
        std::error_code error;
        const std::string match = found.gl_pathv[i];
        (fs::is_directory(match, error) ? files.left_out : files.paths).push_back(match);
    }
    ::globfree(&found);
    if (result != 0 && result != GLOB_NOMATCH) fail(Exit::data, "{}: cannot read the folders of this pattern", path);
    if (files.paths.empty())
        fail(Exit::data, "{}: no file matches this pattern{}", path, files.left_out.empty() ? "" : ", only folders do");
    std::sort(files.paths.begin(), files.paths.end());
    return files;
}

/// What README.md of a folder says about its files.
std::vector<CardFiles> card_of(const std::string& folder) {
    const std::string readme = folder + "/README.md";
    std::error_code error;
    if (!fs::is_regular_file(readme, error)) return {};
    return read_data_card(read_file(readme, limits::readme_bytes), readme);
}

/// Files, each with the name of the data and the folder that it is in.
struct Listing {
    DataFiles& files;
    const std::string& path;
    fs::path folder;
    const std::vector<CardFiles>& card;
};

/// Keeps the files of the split that is asked for.
void select_split(const Listing& listing, const Split& split) {
    auto& [files, path, folder, card] = listing;
    std::map<std::string, std::vector<std::string>> splits;
    for (std::string& file : files.paths) {
        const std::string of = split_by(card, file, folder);
        (of.empty() ? files.left_out : splits[of]).push_back(std::move(file));
    }
    if (splits.empty()) fail(Exit::data, "{}: no data file is one of those that README.md names under configs", path);
    const std::string wanted =
        split.if_several && (splits.size() == 1 || !splits.contains(split.name)) ? "" : split.name;
    std::vector<std::string> names;
    for (const auto& [name, of_split] : splits) names.push_back(fmt::format("{} ({})", name, of_split.size()));
    if (wanted.empty() && splits.size() > 1)
        fail(Exit::data, "{}: holds files of several splits: {}; choose one, for example split: {}", path,
             fmt::join(names, ", "), splits.contains("train") ? "train" : splits.begin()->first);
    const bool file = splits.size() == 1 && wanted == "train" && is_file(path);  // whatever its name says
    const auto chosen = wanted.empty() || file ? splits.begin() : splits.find(wanted);
    if (chosen == splits.end())
        fail(Exit::data, "{}: no file belongs to split {}; found {}", path, wanted, fmt::join(names, ", "));
    files.paths = std::move(chosen->second);
    for (auto& [name, others] : splits)
        if (name != chosen->first) files.left_out.insert(files.left_out.end(), others.begin(), others.end());
    std::sort(files.left_out.begin(), files.left_out.end());
}

}  // namespace

namespace {

/// Refuses files that lie in several folders, unless these only name splits.
void refuse_several_folders(const std::vector<std::string>& files, const std::string& inside, const std::string& name) {
    std::set<std::string> folders;
    for (const std::string& file : files) {
        fs::path folder = fs::path(file).parent_path();
        while (!folder.empty() && !split_of_name(folder.filename().string()).empty()) folder = folder.parent_path();
        folders.insert(folder);
    }
    if (folders.size() < 2) return;
    const std::string example = folders.begin()->empty() ? *std::next(folders.begin()) : *folders.begin();
    fail(Exit::data,
         "{}: has data files in several folders: {}; give one, such as {}/{}, or all by a pattern, such as {}/{}", name,
         fmt::join(folders, ", "), name, example, name, inside.empty() ? "*/*" : inside + "/*/*");
}

}  // namespace

std::vector<std::string> choose_data_files(const std::vector<std::string>& listed, const std::string& inside,
                                           const Split& split, const std::string& name,
                                           const std::vector<CardFiles>& card) {
    DataFiles files;
    const bool pattern = inside.find_first_of("*?[") != inside.npos;
    const std::string folder = pattern || inside.empty() ? "" : inside + "/";
    for (const std::string& path : listed) {
        const bool hidden = path.starts_with('.') || path.find("/.") != path.npos;
        const bool wanted = pattern ? ::fnmatch(inside.c_str(), path.c_str(), FNM_PATHNAME | FNM_PERIOD) == 0
                                    : path.starts_with(folder) && is_data_file(path) && !hidden;
        if (path == inside) return {path};
        if (wanted) files.paths.push_back(path);
    }
    if (files.paths.empty())
        fail(Exit::data,
             "{}: {} {}; expected files that end in .jsonl, .ndjson, .json (also with .gz or .zst) or .parquet{}{}",
             name, pattern ? "no file matches" : "has no data file in", inside.empty() ? "it" : inside,
             listed.empty() ? "" : ", found ", listed.empty() ? "" : listed.front());
    std::sort(files.paths.begin(), files.paths.end());
    if (!pattern || (!split.name.empty() && !split.if_several)) {
        const std::string folder_of_splits = pattern ? folder_of_pattern(inside) : inside.empty() ? "." : inside;
        select_split({files, name, folder_of_splits, card}, split);
    }
    if (!pattern && card.empty()) refuse_several_folders(files.paths, inside, name);
    return files.paths;
}

bool is_data_file(std::string_view name) {
    name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
    const bool describes = name == "dataset_info.json" || name == "dataset_infos.json" || name == "dataset_dict.json" ||
                           name == "config.json" || name == "state.json";
    if (describes || name.starts_with('.')) return false;
    if (name.ends_with(".parquet")) return true;
    for (const std::string_view archive : {".gz", ".zst"})
        if (name.ends_with(archive)) {
            name.remove_suffix(archive.size());
            break;
        }
    return name.ends_with(".jsonl") || name.ends_with(".ndjson") || name.ends_with(".json");
}

int64_t Split::Bound::of(int64_t rows) const {
    int64_t row = value;
    if (percent)
        row = static_cast<int64_t>(std::nearbyint(static_cast<double>(value) * static_cast<double>(rows) / 100));
    return std::clamp<int64_t>(row < 0 ? rows + row : row, 0, rows);
}

bool Split::needs_count() const {
    const auto depends = [](const std::optional<Bound>& bound) {
        return bound && (bound->percent || bound->value < 0);
    };
    return depends(from) || depends(to);
}

std::optional<Split> parse_split(std::string_view text) {
    Split split;
    const size_t bracket = text.find('[');
    split.name = text.substr(0, bracket);
    const auto wrong = [](unsigned char c) { return !std::isalnum(c) && c != '_' && c != '.' && c != '-'; };
    if (split.name.empty() || std::any_of(split.name.begin(), split.name.end(), wrong)) return std::nullopt;
    split.name = std::string(known_name(split.name));
    if (bracket == text.npos) return split;
    std::string_view range = text.substr(bracket + 1);
    const size_t colon = range.find(':');
    if (colon == range.npos || !range.ends_with(']')) return std::nullopt;
    range.remove_suffix(1);
    const auto read = [](std::string_view bound, std::optional<Split::Bound>& into) {
        if (bound.empty()) return true;
        Split::Bound& value = into.emplace();
        value.percent = bound.ends_with('%');
        if (value.percent) bound.remove_suffix(1);
        const auto [stop, error] = std::from_chars(bound.data(), bound.data() + bound.size(), value.value);
        return error == std::errc() && stop == bound.data() + bound.size() &&
               (!value.percent || (value.value >= -100 && value.value <= 100));
    };
    if (!read(range.substr(0, colon), split.from) || !read(range.substr(colon + 1), split.to)) return std::nullopt;
    return split;
}

std::set<std::string> splits_of_folder(const std::string& path) {
    std::set<std::string> splits;
    const std::vector<CardFiles> card = card_of(path);
    for (const std::string& file : files_of_folder(path).paths) splits.insert(split_by(card, file, path));
    splits.erase("");
    return splits;
}

DataFiles find_data_files(const std::string& path, const Split& split) {
    std::error_code error;
    DataFiles files;
    const bool folder = fs::is_directory(path, error);
    if (folder)
        files = files_of_folder(path);
    else if (!fs::exists(path, error) && path.find_first_of("*?[") != path.npos)
        files = files_of_glob(path);
    else
        files.paths = {path};
    if (folder)
        select_split({files, path, path, card_of(path)}, split);
    else if (!split.name.empty() && !split.if_several)
        select_split({files, path, folder_of_pattern(path), {}}, split);
    for (const std::string& file : files.paths) {  // stores and messages name it in JSON
        using Handler = Json::error_handler_t;
        const std::string shown = Json(file).dump(-1, ' ', false, Handler::replace);
        if (shown != Json(file).dump(-1, ' ', false, Handler::ignore))
            fail(Exit::data, "{}: the name of a file is not UTF-8; rename it: {}", path, shown);
    }
    return files;
}

}  // namespace colonnade
