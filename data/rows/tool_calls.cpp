#include "data/rows/tool_calls.h"

#include "engine/device/error.h"

namespace colonnade {
namespace {

/// {"name", "arguments"}: arguments that are a string of a JSON object become the object.
void check_function(Json& function, const std::string& where) {
    if (!function.is_object() || !function.contains("name") || !function["name"].is_string())
        fail(Exit::data, "{}: expected a call such as {{\"name\": ..., \"arguments\": {{...}}}}, found {}", where,
             shown(function));
    const auto arguments = function.find("arguments");
    if (arguments == function.end() || !arguments->is_string()) return;
    const auto& text = arguments->get_ref<const std::string&>();
    if (text.find_first_not_of(" \t\r\n") == text.npos || text[text.find_first_not_of(" \t\r\n")] != '{') return;
    Json parsed = parse_json(text, where + ": arguments");
    *arguments = std::move(parsed);
}

}  // namespace

Json openai_function(Json function) {
    Json call = {{"type", "function"}};
    call["function"] = std::move(function);
    return call;
}

Json read_tool_calls(const RowFields& message) {
    const Json *calls = message.find_filled("tool_calls"), *call = message.find_filled("function_call");
    if (calls && call)
        fail(Exit::data, "{}: found beside '{}'; expected one of them", message.place("function_call"),
             message.name("tool_calls"));
    if (call) {
        Json function = parsed_container(*call, message.place("function_call"));
        check_function(function, message.place("function_call"));
        return Json::array({openai_function(std::move(function))});
    }
    if (!calls) return nullptr;
    Json list = parsed_container(*calls, message.place("tool_calls"));
    if (!list.is_array()) message.mistyped("tool_calls", "a list of calls");
    for (size_t i = 0; i < list.size(); ++i) {
        const std::string where = fmt::format("{}: {}[{}]", message.where(), message.name("tool_calls"), i);
        if (list[i].is_string()) list[i] = parsed_container(list[i], where);
        const bool has_function = list[i].is_object() && list[i].contains("function");
        check_function(has_function ? list[i]["function"] : list[i], where);
    }
    return list.empty() ? Json() : list;
}

Json tool_calls_of_text(const RowFields& message, const std::string& content_key) {
    const std::string text = message.text(content_key), where = message.place(content_key) + " of a tool call";
    Json calls = parsed_container(text, where);
    if (!calls.is_array()) calls = Json::array({calls});
    if (calls.empty()) fail(Exit::data, "{}: the list of calls is empty", where);
    for (Json& call : calls) {
        check_function(call, where);
        call = openai_function(std::move(call));
    }
    return calls;
}

}  // namespace colonnade
