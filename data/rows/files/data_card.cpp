#include "data/rows/files/data_card.h"

#include <fnmatch.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

/// The text between the first line and the next, if both are `---`.
std::string_view front_matter(std::string_view readme) {
    if (!readme.starts_with("---\n") && !readme.starts_with("---\r\n")) return {};
    const std::string_view text = readme.substr(readme.find('\n') + 1);
    const size_t end = text.starts_with("---") ? 0 : text.find("\n---");
    return end == text.npos ? std::string_view() : text.substr(0, end);
}

/// The lines of one key of a map: up to the next line that begins another. The rest may be of any size.
std::string_view lines_of_key(std::string_view yaml, const std::string& key) {
    size_t begin = yaml.starts_with(key) ? 0 : yaml.find('\n' + key);
    if (begin == yaml.npos) return {};
    begin += yaml[begin] == '\n';
    size_t end = begin;
    do end = yaml.find('\n', end + 1);
    while (end != yaml.npos && end + 1 < yaml.size() && std::string_view(" -#\r\n").find(yaml[end + 1]) != yaml.npos);
    return yaml.substr(begin, end == yaml.npos ? end : end - begin);
}

std::string text_of(const YAML::Node& node) {
    return node && node.IsScalar() ? node.Scalar() : "";
}

class Reader {
  public:
    std::vector<CardFiles> files(const YAML::Node& config) {
        folder_ = text_of(config["data_dir"]);
        while (folder_.ends_with('/')) folder_.pop_back();
        if (folder_ == ".") folder_.clear();
        const YAML::Node files = config["data_files"];
        if (!files && !folder_.empty()) add("", YAML::Node("**"));
        if (files && files.IsMap())
            for (const auto& entry : files) add(text_of(entry.first), entry.second);
        else if (files && files.IsSequence())
            for (const YAML::Node& item : files)
                item.IsMap() ? add(text_of(item["split"]), item["path"]) : add("train", item);
        else if (files)
            add("train", files);
        return std::move(all_);
    }

  private:
    void add(const std::string& split, const YAML::Node& paths) {
        if (paths && paths.IsSequence()) {
            for (const YAML::Node& path : paths) add_one(split, text_of(path));
        } else {
            add_one(split, text_of(paths));
        }
    }
    void add_one(const std::string& split, std::string pattern) {
        if (all_.size() >= limits::data_files) fail(Exit::data, "more than {} patterns of files", limits::data_files);
        if (pattern.starts_with("./")) pattern.erase(0, 2);
        if (pattern.empty()) fail(Exit::data, "expected a path for each of data_files");
        all_.push_back({split, folder_.empty() ? pattern : folder_ + '/' + pattern});
    }

    std::string folder_;
    std::vector<CardFiles> all_;
};

std::vector<CardFiles> files_of_default(const YAML::Node& configs) {
    if (!configs || !configs.IsSequence()) return {};
    for (const YAML::Node& config : configs) {
        if (!config.IsMap()) fail(Exit::data, "expected a map for each of configs");
        const bool is_default = text_of(config["default"]) == "true" || text_of(config["config_name"]) == "default";
        if (is_default || configs.size() == 1) return Reader().files(config);
    }
    return {};
}

}  // namespace

std::vector<CardFiles> read_data_card(std::string_view readme, const std::string& where) {
    const std::string_view yaml = lines_of_key(front_matter(readme), "configs:");
    if (yaml.empty()) return {};
    if (yaml.size() > limits::card_bytes)
        fail(Exit::data, "{}: configs of more than {} bytes", where, limits::card_bytes);
    const auto refuse = [&](const std::string& what) {
        fail(Exit::data, "{}: configs cannot be read: {}; give the files themselves, as a path or a pattern", where,
             what);
    };
    std::vector<CardFiles> files;
    try {
        const YAML::Node root = YAML::Load(std::string(yaml));
        if (root.IsMap()) files = files_of_default(root["configs"]);
    } catch (const YAML::Exception& e) {
        const auto line = std::count(readme.data(), yaml.data(), '\n') + e.mark.line + 1;
        refuse(fmt::format("line {}: {}", line, e.msg));
    } catch (const Error& e) {
        refuse(e.what());
    }
    return files;
}

bool card_means(const std::string& pattern, const std::string& path) {
    if (pattern == path || path.starts_with(pattern + '/')) return true;
    if (pattern.find("**") == pattern.npos) return ::fnmatch(pattern.c_str(), path.c_str(), FNM_PATHNAME) == 0;
    std::string without = pattern;  // ** means any number of folders, also none
    for (size_t at; (at = without.find("**/")) != without.npos;) without.erase(at, 3);
    return ::fnmatch(pattern.c_str(), path.c_str(), 0) == 0 || ::fnmatch(without.c_str(), path.c_str(), 0) == 0;
}

}  // namespace colonnade
