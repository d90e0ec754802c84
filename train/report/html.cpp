#include "train/report/html.h"

#include <fmt/format.h>

#include <cmath>

#include "data/text/unicode.h"

namespace colonnade {
namespace {

std::vector<std::string> all_escaped(std::vector<std::string> texts) {
    for (std::string& text : texts) text = escaped(text);
    return texts;
}

}  // namespace

std::string escaped(std::string_view text) {
    std::string all;
    for (const char c : replace_ill_formed(text)) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '&')
            all += "&amp;";
        else if (c == '<')
            all += "&lt;";
        else if (c == '>')
            all += "&gt;";
        else if (c == '"')
            all += "&quot;";
        else if (c == '\'')
            all += "&#39;";
        else if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F)
            all += "\xEF\xBF\xBD";
        else
            all += c;
    }
    return all;
}

std::string script_json(const Json& json) {
    std::string text;
    for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace))
        c == '<' ? text += "\\u003c" : text += c;
    return "<script type=\"application/json\">" + text + "</script>";
}

std::string html_table_of_markup(const std::vector<std::string>& head,
                                 const std::vector<std::vector<std::string>>& rows, size_t numbers) {
    const auto line = [&](const char* tag, const std::vector<std::string>& cells) {
        std::string text = "<tr>";
        for (size_t i = 0; i < cells.size(); ++i)
            text += fmt::format("<{0}{1}>{2}</{0}>", tag, i >= numbers ? " class=\"number\"" : "", cells[i]);
        return text + "</tr>\n";
    };
    std::string text = "<div class=\"wide\"><table>\n";
    if (!head.empty()) text += "<thead>" + line("th", all_escaped(head)) + "</thead>\n";
    text += "<tbody>\n";
    for (const std::vector<std::string>& row : rows) text += line("td", row);
    return text + "</tbody></table></div>\n";
}

std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows,
                       size_t numbers) {
    std::vector<std::vector<std::string>> cells;
    for (const std::vector<std::string>& row : rows) cells.push_back(all_escaped(row));
    return html_table_of_markup(head, cells, numbers);
}

std::string number_text(double value) {
    if (std::abs(value) < 1e15 && value == std::floor(value)) return fmt::format("{:.0f}", value);
    return fmt::format("{:.6g}", value);
}

}  // namespace colonnade
