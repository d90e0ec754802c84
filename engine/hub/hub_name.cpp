#include "engine/hub/hub_name.h"

#include <algorithm>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

bool is_part_of_name(const std::string& part) {
    const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
    const auto edge = [](char c) { return c == '-' || c == '.'; };
    return !part.empty() && part.size() <= limits::hub_name_bytes && std::ranges::all_of(part, fits) &&
           !edge(part.front()) && !edge(part.back()) && part.find("--") == part.npos && part.find("..") == part.npos &&
           !part.ends_with(".git");
}

/// Takes the text up to the next of `ends` off the front of `rest`.
std::string take(std::string& rest, const char* ends) {
    const size_t end = std::min(rest.find_first_of(ends), rest.size());
    std::string part = rest.substr(0, end);
    rest.erase(0, end);
    return part;
}

std::string take_revision(std::string& rest) {
    std::string revision = take(rest, "/:");
    if (revision != "refs") return revision;
    for (int part = 0; part < 2 && rest.starts_with('/'); ++part) {
        rest.erase(0, 1);
        revision += '/' + take(rest, "/:");
    }
    return revision;
}

/// `org`: whether the name has two parts.
std::optional<HubName> parse(std::string rest, RepositoryKind kind, bool org) {
    HubName name{.kind = kind, .repository = take(rest, org ? "/" : "@:/")};
    if (!is_part_of_name(name.repository)) return {};
    if (org) {
        if (!rest.starts_with('/')) return {};
        rest.erase(0, 1);
        const std::string second = take(rest, "@:/");
        if (!is_part_of_name(second)) return {};
        name.repository += '/' + second;
    }
    if (rest.starts_with('@')) {
        rest.erase(0, 1);
        name.revision = take_revision(rest);
        if (!is_inside(name.revision)) return {};
    }
    if (rest.empty()) return name;
    name.path = rest.substr(1);
    while (name.path.ends_with('/')) name.path.pop_back();
    if (!name.path.empty() && !is_inside(name.path)) return {};
    return name;
}

HubName parse_uri(const std::string& text, RepositoryKind kind) {
    std::string rest = text.substr(5);
    for (const auto& [prefix, of] :
         {std::pair("models/", RepositoryKind::model), {"datasets/", RepositoryKind::dataset}})
        if (rest.starts_with(prefix)) {
            if (of != kind)
                fail(Exit::data, "{}: names a {}, expected a {}", text,
                     of == RepositoryKind::model ? "model" : "data set",
                     kind == RepositoryKind::model ? "model" : "data set");
            rest.erase(0, std::string(prefix).size());
        }
    auto name = parse(rest, kind, true);
    if (!name) name = parse(rest, kind, false);
    if (!name) fail(Exit::data, "{}: is no name of a hub; expected hf://org/name[@revision][/path]", text);
    return *name;
}

bool looks_like_file(const std::string& name) {
    for (const char* end : {".gguf", ".json", ".jsonl", ".ndjson", ".parquet", ".gz", ".zst", ".safetensors", ".bin",
                            ".model", ".txt", ".csv", ".yaml", ".yml", ".h5"})
        if (name.ends_with(end)) return true;
    return false;
}

}  // namespace

std::string HubName::text() const {
    return repository + (revision == "main" ? "" : '@' + revision) + (path.empty() ? "" : '/' + path);
}

bool is_hex(const std::string& text, size_t digits) {
    return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

bool is_commit(const std::string& revision) {
    return is_hex(revision, 40);
}

bool is_inside(const std::string& path) {
    if (path.empty() || path.size() > limits::hub_path_bytes) return false;
    for (const unsigned char c : path)
        if (c < ' ' || c == '\\' || c == 0x7F) return false;
    for (size_t begin = 0, end = 0; end != path.npos; begin = end + 1) {
        end = path.find('/', begin);
        const std::string part = path.substr(begin, end == path.npos ? end : end - begin);
        if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
    }
    return true;
}

std::optional<HubName> parse_hub_name(const std::string& text, RepositoryKind kind) {
    std::error_code none;
    if (text.starts_with("hf://")) return parse_uri(text, kind);
    if (text.empty() || text[0] == '/' || text[0] == '.' || text[0] == '~' || fs::exists(text, none)) return {};
    if (fs::is_directory(text.substr(0, text.find('/')), none)) return {};
    auto name = parse(text, kind, true);
    if (!name || (name->path.empty() && looks_like_file(name->repository))) return {};
    const bool colon = text.find(':') != text.npos;
    if (kind == RepositoryKind::model && !name->path.empty() && !colon && !name->path.ends_with(".gguf")) return {};
    return name;
}

}  // namespace colonnade
