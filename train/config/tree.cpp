#include "train/config/tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr size_t max_bytes = limits::yaml_bytes, max_depth = limits::yaml_depth, max_values = limits::yaml_values;

/// Builds the tree from yaml-cpp's events, because its own Node tree silently merges duplicate keys and shares aliased
/// values.
class TreeBuilder : public YAML::EventHandler {
  public:
    TreeBuilder(std::string_view yaml, std::function<std::string(const YAML::Mark&)> where)
        : yaml_(yaml), where_(std::move(where)) {}

    ConfigNode take_root() { return std::move(root_); }

    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(mark, "", anchor, {}); }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
        fail(Exit::config, "{}: aliases (*name) are not allowed in a config", where_(mark));
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        if (tag == "!") check_closed(mark);
        leaf(mark, tag, anchor, {.kind = ConfigNode::Kind::scalar, .text = value, .quoted = tag == "!"});
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, ConfigNode::Kind::sequence);
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, ConfigNode::Kind::map);
    }
    void OnMapEnd() override { close(); }

  private:
    struct Level {
        ConfigNode node;
        std::optional<ConfigNode> key;  // read; its value follows
    };

    void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
        if (anchor) fail(Exit::config, "{}: anchors (&name) are not allowed in a config", where_(mark));
        if (!tag.empty() && tag != "?" && tag != "!")
            fail(Exit::config, "{}: tags are not allowed in a config, found '{}'", where_(mark), tag);
        if (++values_ > max_values) fail(Exit::config, "{}: more than {} values", where_(mark), max_values);
    }
    /// YAML lets a text in quotes go on over lines, so that one without a closing quote swallows the keys below it.
    void check_closed(const YAML::Mark& mark) const {
        std::string_view line = yaml_;
        for (int i = 0; i < mark.line && !line.empty(); ++i)
            line.remove_prefix(std::min(line.find('\n'), line.size() - 1) + 1);
        line = line.substr(0, line.find('\n'));
        const auto begin = static_cast<size_t>(mark.column);
        if (begin >= line.size() || (line[begin] != '"' && line[begin] != '\'')) return;
        const char quote = line[begin];
        for (size_t at = begin + 1; at < line.size(); ++at) {
            if (quote == '"' && line[at] == '\\')
                ++at;
            else if (line[at] == quote)
                return;
        }
        fail(Exit::config,
             "{}: the quote {} is not closed in its line; close it, or write a text of several lines as key: |",
             where_(mark), quote);
    }
    void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, ConfigNode::Kind kind) {
        check(mark, tag, anchor);
        if (levels_.size() == max_depth) fail(Exit::config, "{}: more than {} levels", where_(mark), max_depth);
        levels_.push_back({.node = {.kind = kind, .where = where_(mark)}, .key = {}});
    }
    void leaf(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, ConfigNode node) {
        check(mark, tag, anchor);
        node.where = where_(mark);
        add(std::move(node));
    }
    void close() {
        ConfigNode node = std::move(levels_.back().node);
        levels_.pop_back();
        add(std::move(node));
    }
    void add(ConfigNode node) {
        if (levels_.empty()) {
            root_ = std::move(node);
            return;
        }
        Level& level = levels_.back();
        if (level.node.kind == ConfigNode::Kind::map) {
            if (!level.key) {
                if (node.kind != ConfigNode::Kind::scalar)
                    fail(Exit::config, "{}: expected the name of a key, found {}", node.where, node.found());
                level.key = std::move(node);
                return;
            }
            node.key = level.key->text;
            node.key_where = level.key->where;
            level.key.reset();
        }
        level.node.children.push_back(std::move(node));
    }

    std::string_view yaml_;
    std::function<std::string(const YAML::Mark&)> where_;
    ConfigNode root_;
    std::vector<Level> levels_;
    size_t values_ = 0;
};

/// Names that are not UTF-8 could not be written to the JSON files of a run.
void check_utf8(std::string_view text, const std::string& where) {
    if (const size_t good = well_formed_prefix(text); good != text.size())
        fail(Exit::config, "{}: byte {} is not UTF-8", where, good + 1);
}

ConfigNode parse_tree(std::string_view yaml, const std::function<std::string(const YAML::Mark&)>& where) {
    std::istringstream stream{std::string(yaml)};
    try {
        YAML::Parser parser(stream);
        TreeBuilder builder(yaml, where);
        parser.HandleNextDocument(builder);
        ConfigNode root = builder.take_root();
        if (parser) fail(Exit::config, "{}: a second YAML document begins after the first", root.where);
        return root;
    } catch (const YAML::Exception& e) {
        fail(Exit::config, "{}: this is not valid YAML: {}", where(e.mark), e.msg);
    }
}

// --- Overrides ---

struct Step {
    std::string key;
    std::vector<size_t> indices;
};

/// "datasets[0].path" -> {datasets, [0]}, {path}. Empty if it is not a path.
std::vector<Step> parse_path(std::string_view path) {
    std::vector<Step> steps;
    while (true) {
        const size_t key_end = std::min(path.find_first_of(".["), path.size());
        if (key_end == 0) return {};
        Step& step = steps.emplace_back(Step{std::string(path.substr(0, key_end)), {}});
        path.remove_prefix(key_end);
        while (path.starts_with('[')) {
            const size_t close = path.find(']');
            if (close == std::string_view::npos) return {};
            const char* end = path.data() + close;
            const auto [stop, error] = std::from_chars(path.data() + 1, end, step.indices.emplace_back());
            if (error != std::errc() || stop != end) return {};
            path.remove_prefix(close + 1);
        }
        if (path.empty()) return steps;
        if (path.front() != '.') return {};
        path.remove_prefix(1);
    }
}

struct Argument {
    std::string where, path, value;
};

/// Splits the three spellings into path and value.
std::vector<Argument> split_arguments(const std::vector<std::string>& arguments, Problems& problems) {
    std::vector<Argument> split;
    for (size_t i = 0; i < arguments.size(); ++i) {
        std::string text = arguments[i];
        const bool dashed = text.starts_with("--");
        size_t equals = text.find('=');
        if (equals == std::string::npos && dashed && i + 1 < arguments.size() && !arguments[i + 1].starts_with("--")) {
            equals = text.size();
            text += ' ' + arguments[++i];
        }
        const std::string where = fmt::format("argument '{}'", text);
        const size_t begin = dashed ? 2 : 0;
        if (equals == std::string::npos || equals <= begin) {
            problems.add(where, "expected key=value, --key=value or --key value");
            continue;
        }
        std::string path = text.substr(begin, equals - begin);
        if (dashed) std::replace(path.begin(), path.end(), '-', '_');
        split.push_back({where, path, text.substr(equals + 1)});
    }
    return split;
}

/// The entry or item that a step leads to; creates it if it is missing. Null if the tree has another form there.
ConfigNode* descend(ConfigNode* node, const Step& step, const Argument& argument, Problems& problems) {
    const auto become = [&](ConfigNode::Kind kind, const char* what) {
        if (node->kind == ConfigNode::Kind::null)
            *node = {.kind = kind, .where = argument.where, .key = node->key, .key_where = node->key_where};
        if (node->kind == kind) return true;
        problems.add(argument.where, "expected {} '{}', found {}", what, step.key, node->found());
        return false;
    };
    if (!become(ConfigNode::Kind::map, "a map that holds")) return nullptr;
    const auto entry = std::find_if(node->children.begin(), node->children.end(),
                                    [&](const ConfigNode& child) { return child.key == step.key; });
    node = entry != node->children.end() ? &*entry
                                         : &node->children.emplace_back(ConfigNode{
                                               .where = argument.where, .key = step.key, .key_where = argument.where});
    for (const size_t index : step.indices) {
        if (!become(ConfigNode::Kind::sequence, "a list for")) return nullptr;
        if (index > node->children.size()) {
            problems.add(argument.where, "index {} of '{}' is past its end: it has {} items", index, step.key,
                         node->children.size());
            return nullptr;
        }
        if (index == node->children.size()) node->children.emplace_back(ConfigNode{.where = argument.where});
        node = &node->children[index];
    }
    return node;
}

}  // namespace

void Problems::raise(const std::string& name) const {
    if (lines_.empty()) return;
    if (lines_.size() == 1) throw Error(Exit::config, lines_.front());
    fail(Exit::config, "{}: {} problems\n  {}", name, lines_.size(), fmt::join(lines_, "\n  "));
}

std::string ConfigNode::found() const {
    constexpr size_t longest = 60;
    std::string inside;
    for (const ConfigNode& child : children) {
        if (inside.size() > longest) break;
        const std::string value = child.kind == Kind::scalar ? child.text : child.found();
        inside += (inside.empty() ? "" : ", ") + (kind == Kind::map ? child.key + ": " : "") + value;
    }
    if (kind == Kind::scalar) inside = text;
    if (inside.size() > longest) inside = inside.substr(0, longest) + "...";
    switch (kind) {
        case Kind::null:
            return "nothing";
        case Kind::scalar:
            return quoted ? '"' + inside + '"' : "'" + inside + "'";
        case Kind::sequence:
            return '[' + inside + ']';
        case Kind::map:
            return '{' + inside + '}';
    }
    return inside;
}

ConfigNode parse_config_tree(std::string_view yaml, const std::string& name) {
    if (yaml.size() > max_bytes) fail(Exit::config, "{}: larger than {} bytes", name, max_bytes);
    check_utf8(yaml, name);
    const auto where = [&](const YAML::Mark& mark) {
        return mark.is_null() ? name : fmt::format("{}:{}:{}", name, mark.line + 1, mark.column + 1);
    };
    ConfigNode root = parse_tree(yaml, where);
    if (root.where.empty()) root.where = name;
    if (root.kind != ConfigNode::Kind::map && root.kind != ConfigNode::Kind::null)
        fail(Exit::config, "{}: expected 'key: value' lines, found {}", root.where, root.found());
    return root;
}

void apply_overrides(ConfigNode& root, const std::vector<std::string>& arguments,
                     const std::function<std::string(const std::string&)>& canonical, Problems& problems) {
    for (const Argument& argument : split_arguments(arguments, problems)) {
        std::vector<Step> steps = parse_path(argument.path);
        if (steps.empty()) {
            problems.add(argument.where, "'{}' is not a key: expected a name such as max_length or datasets[0].path",
                         argument.path);
            continue;
        }
        const std::string name = canonical(steps[0].key);
        for (ConfigNode& entry : root.children) {
            if (canonical(entry.key) == name) steps[0].key = entry.key;
        }
        ConfigNode* node = &root;
        for (const Step& step : steps) {
            node = descend(node, step, argument, problems);
            if (!node) break;
        }
        if (!node) continue;
        check_utf8(argument.value, argument.where);
        ConfigNode value = parse_tree(argument.value, [&](const YAML::Mark&) { return argument.where; });
        value.key = node->key;
        value.key_where = node->key_where;
        if (value.where.empty()) value.where = argument.where;
        *node = std::move(value);
    }
}

}  // namespace colonnade
