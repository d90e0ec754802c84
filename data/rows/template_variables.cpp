#include "data/rows/template_variables.h"

#include "data/rows/tool_calls.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr const char* single_variables[] = {"enable_thinking",      "preserve_thinking", "keep_past_thinking",
                                            "reasoning_effort",     "date_string",       "model_identity",
                                            "tools_in_user_message"};
constexpr const char* list_variables[] = {"tools",         "documents", "custom_tools",
                                          "builtin_tools", "xml_tools", "python_tools"};

constexpr size_t most_variables = limits::template_variables;

enum class BareFunctions { keep, wrap };

/// A list whose objects may be strings of JSON; other strings are names of built-in tools.
Json read_list_variable(const RowFields& row, const std::string& key, BareFunctions bare) {
    Json list = parsed_container(row.at(key), row.place(key));
    if (!list.is_array()) row.mistyped(key, "a list, or a string of JSON that holds one");
    for (Json& item : list) {
        if (item.is_string() && item.get_ref<const std::string&>().starts_with('{'))
            item = parsed_container(item, row.place(key));
        const bool is_bare = item.is_object() && item.contains("name") && !item.contains("function");
        if (is_bare && bare == BareFunctions::wrap) item = openai_function(std::move(item));
    }
    return list;
}

}  // namespace

Json read_variables(const RowFields& row, MessageStyle style) {
    Json variables;
    const auto set = [&](const std::string& name, Json value, const std::string& key) {
        if (value.is_null() || (value.is_structured() && value.empty())) return;
        require_finite(value, row.place(key));
        if (variables.contains(name) && variables[name] != value)
            fail(Exit::data, "{}: its value of {} contradicts the row's", row.place(key), shown_key(name));
        variables[name] = std::move(value);
    };
    for (const char* key : single_variables)
        if (const Json* value = row.find_filled(key)) set(key, *value, key);
    for (const char* key : list_variables) {
        const bool wrap = style == MessageStyle::sharegpt && std::string_view(key) == "tools";
        if (row.find_filled(key))
            set(key, read_list_variable(row, key, wrap ? BareFunctions::wrap : BareFunctions::keep), key);
    }
    if (row.find_filled("functions"))
        set("tools", read_list_variable(row, "functions", BareFunctions::wrap), "functions");
    if (const Json* more = row.find_filled("chat_template_kwargs")) {
        const Json entries = parsed_container(*more, row.place("chat_template_kwargs"));
        if (!entries.is_object()) row.mistyped("chat_template_kwargs", "an object, or a string of JSON that holds one");
        if (entries.size() > most_variables)
            fail(Exit::data, "{}: {} entries, expected at most {}", row.place("chat_template_kwargs"), entries.size(),
                 most_variables);
        for (const auto& [name, value] : entries.items()) set(name, value, "chat_template_kwargs");
    }
    return variables;
}

}  // namespace colonnade
