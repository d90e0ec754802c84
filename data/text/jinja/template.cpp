#include "data/text/jinja/template.h"

#include <algorithm>

#include "data/text/jinja/interpreter.h"

namespace colonnade::jinja {
namespace {

template <typename Visit>
void visit_all(const Node& node, const Visit& visit) {
    visit(node);
    for (const NodePtr& part : node.parts)
        if (part) visit_all(*part, visit);
}

std::string at(const std::string& name, Place place, const std::string& what) {
    return fmt::format("{}:{}:{}: {}", name, place.line, place.column, what);
}

}  // namespace

Template::Template(const std::string& source, std::string name)
    : name_(std::move(name)), tree_(parse_template(source, name_)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

Rendered Template::render(const nlohmann::ordered_json& variables, const RenderOptions& options) const {
    Interpreter interpreter(options, variables);
    try {
        return interpreter.run(*tree_);
    } catch (const Error& e) {
        std::string what = e.what();
        std::replace(what.begin(), what.end(), '\n', ' ');
        throw Error(e.exit(), at(name_, interpreter.place(), what));
    }
}

std::vector<std::string> Template::find_unsupported() const {
    std::vector<std::string> found;
    visit_all(*tree_, [&](const Node& node) {
        if (node.form == Form::filter && !has_filter(node.word))
            found.push_back(at(name_, node.place, "the filter '" + node.word + "' is not supported"));
        if (node.form == Form::test && !has_test(node.word))
            found.push_back(at(name_, node.place, "the test '" + node.word + "' is not supported"));
    });
    return found;
}

bool Template::has_generation() const {
    bool found = false;
    visit_all(*tree_, [&](const Node& node) { found = found || node.form == Form::generation; });
    return found;
}

std::string Rendered::path(uint32_t origin) const {
    std::string path;
    for (; origin != 0 && origins[origin].input; origin = origins[origin].parent) {
        const std::string& key = origins[origin].key;
        const bool top = origins[origin].parent == 0;
        const bool index = !top && key.find_first_not_of("0123456789") == std::string::npos;
        path = (index ? "[" + key + "]" : top ? key : "." + key) + path;
    }
    return path;
}

namespace {

/// Gives the reasoning of a message all the names that templates read.
void alias_reasoning(nlohmann::ordered_json& message) {
    for (const char* given : {"reasoning_content", "thinking", "reasoning"}) {
        if (!message.contains(given)) continue;
        const nlohmann::ordered_json value = message[given];
        for (const char* name : {"reasoning_content", "thinking"})
            if (!message.contains(name)) message[name] = value;
        return;
    }
}

}  // namespace

nlohmann::ordered_json chat_variables(nlohmann::ordered_json variables) {
    for (const char* name : {"tools", "documents"})
        if (!variables.contains(name)) variables[name] = nullptr;
    if (!variables.contains("add_generation_prompt")) variables["add_generation_prompt"] = false;
    if (variables.contains("messages") && variables["messages"].is_array())
        for (auto& message : variables["messages"]) {
            if (!message.is_object()) continue;
            nlohmann::ordered_json kept = nlohmann::ordered_json::object();
            for (const auto& [key, value] : message.items())
                if (!value.is_null()) kept[key] = value;
            alias_reasoning(kept);
            message = std::move(kept);
        }
    return variables;
}

}  // namespace colonnade::jinja
