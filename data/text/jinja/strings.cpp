// What filters and methods of strings share.

#include "data/text/jinja/builtins.h"

namespace colonnade::jinja {

Value mapped_case(const Value& value, std::string (*map)(std::string_view), Runtime& runtime) {
    const Text& text = value.as_text();
    runtime.budget.write(text.size());
    // Each run alone keeps the marks. The result may differ from that of the whole where a rule looks at neighbours.
    Text by_run;
    size_t begin = 0;
    for (const Run& run : text.runs()) {
        by_run.append(map(std::string_view(text.bytes()).substr(begin, run.end - begin)), run.mark);
        begin = run.end;
    }
    if (text.runs().size() > 1)
        if (const std::string whole = map(text.bytes()); whole != by_run.bytes())
            return Value::text(Text(whole, text.mark_at(0)), value.is_markup());
    return Value::text(std::move(by_run), value.is_markup());
}

Value capitalized(const Value& value, Runtime& runtime) {
    const Text& text = value.as_text();
    if (text.empty()) return value;
    const size_t first = character_length(text.bytes(), 0);
    Text result(title_case(text.bytes().substr(0, first)), text.mark_at(0));
    result.append(mapped_case(Value::text(text.part(first, text.size())), lower_case, runtime).as_text());
    return Value::text(std::move(result), value.is_markup());
}

Value replaced(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("replace", {"old", "new", "count"}, 2);
    const Text old = to_text(*arguments.get(0, "old"), runtime.budget),
               fresh = to_text(*arguments.get(1, "new"), runtime.budget);
    const Value* given = arguments.get(2, "count");
    if (given != nullptr && !given->is_integral() && !given->is(Kind::none))
        fail(Exit::data, "replace needs an integer as count");
    int64_t left = given != nullptr && given->is_integral() ? given->as_integer() : -1;
    if (old.empty()) fail(Exit::data, "replace of an empty text is not supported");
    const Text& text = value.as_text();
    runtime.budget.write(text.size());
    Text result;
    size_t at = 0;
    for (size_t next; left != 0 && (next = find_text(text.bytes(), old.bytes(), at)) != std::string::npos; --left) {
        result.append_part(text, at, next);
        append(result, fresh, runtime.budget);
        at = next + old.size();
    }
    result.append_part(text, at, text.size());
    return Value::text(std::move(result), value.is_markup());
}

std::vector<Text> lines_of(const Text& text, Budget& budget) {
    const std::string& bytes = text.bytes();
    std::vector<Text> lines;
    size_t begin = 0;
    for (size_t at = 0; at < bytes.size();) {
        const char32_t c = character_at(bytes, at);
        size_t next = at + character_length(bytes, at);
        const bool ends = (c >= 0xA && c <= 0xD) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (ends) {
            if (c == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
            budget.make(1);
            lines.push_back(text.part(begin, at));
            begin = next;
        }
        at = next;
    }
    if (begin < bytes.size()) lines.push_back(text.part(begin, bytes.size()));
    return lines;
}

}  // namespace colonnade::jinja
