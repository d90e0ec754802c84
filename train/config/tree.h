#pragma once
// ConfigNode: a YAML file as a small tree in which every value keeps the place it was read from, so that errors name
// file, line and column. Command-line overrides are applied to the same tree; their place is the argument.
//
// Only a narrow, safe form of YAML is accepted: at most 1 MiB, 32 levels and 10,000 values, one document, no anchors,
// aliases or tags. Text in quotes is always text. A null stands for "not given".

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// All problems of a config, in the order found.
class Problems {
  public:
    template <typename... Args>
    void add(const std::string& where, fmt::format_string<Args...> format, Args&&... args) {
        lines_.push_back(where + ": " + fmt::format(format, std::forward<Args>(args)...));
    }
    /// Throws Exit::config with all problems, unless there are none.
    void raise(const std::string& name) const;

  private:
    std::vector<std::string> lines_;
};

struct ConfigNode {
    enum class Kind { null, scalar, sequence, map } kind = Kind::null;
    std::string text = {};                  ///< scalars only
    bool quoted = false;                    ///< a scalar in quotes
    std::string where = {};                 ///< "config.yaml:12:5", or "argument 'lr=3'"
    std::string key = {}, key_where = {};   ///< entries of a map only
    std::vector<ConfigNode> children = {};  ///< entries of a map, items of a sequence

    /// For messages: '3.5', "3.5" if it was quoted, [jsonl, wandb], {path: x}, nothing; cut to a readable length.
    std::string found() const;
};

/// `name` precedes line and column in messages. Throws Exit::config at the first thing that does not have the form
/// above.
ConfigNode parse_config_tree(std::string_view yaml, const std::string& name);

/// Applies `key=value`, `--key=value` and `--key value` to the tree. A key is a path: model.hidden_size,
/// datasets[0].path; an index one past the end appends. Dashes in the keys of the latter two forms mean underscores.
/// The value is YAML. Later arguments override earlier ones and the file. `canonical` maps a top-level key or alias to
/// its name.
void apply_overrides(ConfigNode& root, const std::vector<std::string>& arguments,
                     const std::function<std::string(const std::string&)>& canonical, Problems& problems);

}  // namespace colonnade
