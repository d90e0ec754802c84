#pragma once
// Names of repositories on a hub, as in Hugging Face's programs:
//
//     [hf://[models/ or datasets/]]org/name[@revision][/path or :path]
//
// `revision`: a branch, a tag, a commit, refs/pr/N or refs/convert/NAME. `path`: a file or a folder inside; for GGUF
// files also a part of the file's name such as Q8_0, after a colon, as in llama.cpp.

#include <optional>
#include <string>

namespace colonnade {

enum class RepositoryKind { model, dataset };

struct HubName {
    RepositoryKind kind = RepositoryKind::model;
    std::string repository;  ///< org/name, or a name alone after hf://
    std::string revision = "main";
    std::string path{};  ///< empty: the whole

    /// org/name@revision/path, without "@main".
    std::string text() const;
};

/// Nothing if `text` names a path of this machine: one that exists, or begins with / . or ~, or whose first part is a
/// folder here, or that has the form of a file (a/b.jsonl). Without hf://, a model's path must be after a colon or end in
/// .gguf. Throws Exit::data for a name that begins with hf:// and is none.
std::optional<HubName> parse_hub_name(const std::string& text, RepositoryKind kind);

/// 40 lower-case hexadecimal digits.
bool is_commit(const std::string& revision);
bool is_hex(const std::string& text, size_t digits);
/// Whether a path of a repository is safe to create inside a folder: relative, and without empty, `.` and `..` parts.
bool is_inside(const std::string& path);

}  // namespace colonnade
