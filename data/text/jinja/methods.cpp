// Methods of strings and dicts.

#include <algorithm>
#include <array>
#include <iterator>

#include "data/text/jinja/builtins.h"

namespace colonnade::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;
bool in(const std::string& name, Names names) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

// What Python's types have beside the supported methods.
const Names kTextMethods = {"split",      "rsplit",   "splitlines", "strip",  "lstrip",       "rstrip",
                            "startswith", "endswith", "replace",    "upper",  "lower",        "capitalize",
                            "find",       "count",    "join",       "format", "removeprefix", "removesuffix"};
const Names kOtherTextMethods = {"casefold",   "center",    "encode",      "expandtabs", "format_map", "index",
                                 "isalnum",    "isalpha",   "isascii",     "isdecimal",  "isdigit",    "isidentifier",
                                 "islower",    "isnumeric", "isprintable", "isspace",    "istitle",    "isupper",
                                 "ljust",      "maketrans", "partition",   "rfind",      "rindex",     "rjust",
                                 "rpartition", "swapcase",  "title",       "translate",  "zfill"};
const Names kDictMethods = {"items", "keys", "values", "get"};
const Names kDictMutators = {"update", "pop", "popitem", "clear", "setdefault"};
const Names kListMutators = {"append", "pop", "insert", "extend", "remove", "reverse", "sort", "clear"};

const Text& text_argument(const Arguments& arguments, size_t index, std::string_view name, const std::string& method) {
    const Value* value = arguments.get(index, name);
    if (value == nullptr || !value->is(Kind::text))
        fail(Exit::data, "{}() needs a str as '{}', found {}", method, name,
             value == nullptr ? "nothing" : type_name(*value));
    return value->as_text();
}

int64_t count_argument(const Arguments& arguments, size_t index, std::string_view name, const std::string& method) {
    const Value* value = arguments.get(index, name);
    if (value == nullptr) return -1;
    if (!value->is_integral())
        fail(Exit::data, "{}() needs an integer as '{}', found {}", method, name, type_name(*value));
    return value->as_integer();
}

Value texts(std::vector<Text> parts, bool markup) {
    Values values;
    for (Text& part : parts) values.push_back(Value::text(std::move(part), markup));
    return Value::list(std::move(values));
}

std::vector<Text> split_at_spaces(const Text& text, int64_t most, Budget& budget) {
    const std::string_view bytes = text.bytes();
    std::vector<Text> parts;
    size_t at = trimmed(bytes, "", Side::left).begin;
    while (at < bytes.size()) {
        size_t end = at;
        budget.make(1);
        if (most >= 0 && static_cast<int64_t>(parts.size()) == most)
            end = bytes.size();
        else
            while (end < bytes.size() && !is_python_space(character_at(bytes, end)))
                end += character_length(bytes, end);
        parts.push_back(text.part(at, end));
        at = end + trimmed(bytes.substr(end), "", Side::left).begin;
    }
    return parts;
}

std::vector<Text> split_at(const Text& text, const std::string& separator, int64_t most, Budget& budget) {
    std::vector<Text> parts;
    size_t at = 0;
    for (size_t next; (most < 0 || static_cast<int64_t>(parts.size()) < most) &&
                      (next = find_text(text.bytes(), separator, at)) != std::string::npos;
         at = next + separator.size()) {
        budget.make(1);
        parts.push_back(text.part(at, next));
    }
    parts.push_back(text.part(at, text.size()));
    return parts;
}

std::vector<Text> split_from_right(const Text& text, const std::string& separator, int64_t most, Budget& budget) {
    std::vector<Text> parts;
    size_t end = text.size();
    budget.spend(text.size() / 64 * separator.size());  // rfind is not linear
    while ((most < 0 || static_cast<int64_t>(parts.size()) < most) && end >= separator.size()) {
        const size_t next = text.bytes().rfind(separator, end - separator.size());
        if (next == std::string::npos) break;
        budget.make(1);
        parts.push_back(text.part(next + separator.size(), end));
        end = next;
    }
    parts.push_back(text.part(0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
}

Value split(const Value& value, const std::string& method, const Arguments& arguments, Budget& budget) {
    arguments.expect(method + "()", {"sep", "maxsplit"}, 0);
    const int64_t most = count_argument(arguments, 1, "maxsplit", method);
    const Value* separator = arguments.get(0, "sep");
    if (separator == nullptr || separator->is(Kind::none)) {
        if (method == "rsplit") fail(Exit::data, "rsplit() without a separator is not supported");
        return texts(split_at_spaces(value.as_text(), most, budget), value.is_markup());
    }
    const std::string& bytes = text_argument(arguments, 0, "sep", method).bytes();
    if (bytes.empty()) fail(Exit::data, "{}() needs a separator that is not empty", method);
    const auto cut = method == "split" ? split_at : split_from_right;
    return texts(cut(value.as_text(), bytes, most, budget), value.is_markup());
}

Value strip(const Value& value, const std::string& method, const Arguments& arguments) {
    arguments.expect(method + "()", {"chars"}, 0);
    const Value* given = arguments.get(0, "chars");
    const Side side = method == "strip" ? Side::both : method == "lstrip" ? Side::left : Side::right;
    std::string characters;
    if (given != nullptr && !given->is(Kind::none)) {
        characters = text_argument(arguments, 0, "chars", method).bytes();
        if (characters.empty()) return value;
    }
    const Trimmed kept = trimmed(value.bytes(), characters, side);
    return Value::text(value.as_text().part(kept.begin, kept.end), value.is_markup());
}

Value starts_or_ends(const Value& value, const std::string& method, const Arguments& arguments, Budget& budget) {
    arguments.expect(method + "()", {"prefix"}, 1);
    const Value& given = *arguments.get(0, "prefix");
    const Values candidates = given.is(Kind::tuple) ? given.values() : Values{given};
    const std::string_view bytes = value.bytes();
    bool found = false;
    for (const Value& each : candidates) {
        if (!each.is(Kind::text)) fail(Exit::data, "{}() needs a str, found {}", method, type_name(each));
        budget.spend(1 + std::min(bytes.size(), each.bytes().size()) / 64);
        found = found || (method == "startswith" ? bytes.starts_with(each.bytes()) : bytes.ends_with(each.bytes()));
    }
    return Value::boolean(found);
}

Value without_affix(const Value& value, const std::string& method, const Arguments& arguments) {
    arguments.expect(method + "()", {"affix"}, 1);
    const std::string& affix = text_argument(arguments, 0, "affix", method).bytes();
    const std::string_view bytes = value.bytes();
    const bool prefix = method == "removeprefix";
    if (prefix ? !bytes.starts_with(affix) : !bytes.ends_with(affix)) return value;
    return Value::text(value.as_text().part(prefix ? affix.size() : 0, bytes.size() - (prefix ? 0 : affix.size())),
                       value.is_markup());
}

Value find_or_count(const Value& value, const std::string& method, const Arguments& arguments) {
    arguments.expect(method + "()", {"sub"}, 1);
    const std::string& sub = text_argument(arguments, 0, "sub", method).bytes();
    const std::string_view bytes = value.bytes();
    if (method == "find") {
        const size_t at = find_text(bytes, sub);
        return Value::integer(at == std::string::npos ? -1
                                                      : static_cast<int64_t>(count_characters(bytes.substr(0, at))));
    }
    if (sub.empty()) return Value::integer(static_cast<int64_t>(count_characters(bytes)) + 1);
    int64_t count = 0;
    for (size_t at = find_text(bytes, sub); at != std::string::npos; at = find_text(bytes, sub, at + sub.size()))
        ++count;
    return Value::integer(count);
}

/// str.format with {}, {0} and {name}; conversions and format specifications are refused.
Value format_text(const Value& value, const Arguments& arguments, Runtime& runtime) {
    const Text& pattern = value.as_text();
    const std::string& bytes = pattern.bytes();
    Text result;
    size_t automatic = 0;
    bool automatic_fields = false, numbered_fields = false;
    for (size_t at = 0; at < bytes.size(); ++at) {
        if (bytes[at] != '{' && bytes[at] != '}') {
            result.append(bytes.substr(at, 1), pattern.mark_at(at));
            continue;
        }
        if (at + 1 < bytes.size() && bytes[at + 1] == bytes[at]) {
            result.append(bytes.substr(at, 1), pattern.mark_at(at));
            ++at;
            continue;
        }
        const size_t end = bytes.find('}', at);
        if (bytes[at] == '}' || end == std::string::npos) fail(Exit::data, "format(): a brace without its partner");
        const std::string field = bytes.substr(at + 1, end - at - 1);
        if (field.find_first_of(":!.[{") != std::string::npos)
            fail(Exit::data, "format(): the field '{{{}}}' is not supported", field);
        const bool number = field.size() < 6 && field.find_first_not_of("0123456789") == std::string::npos;
        (field.empty() ? automatic_fields : numbered_fields) |= field.empty() || number;
        if (automatic_fields && numbered_fields)
            fail(Exit::data, "format(): the fields {{}} and {{0}} exclude each other");
        const size_t index = field.empty() ? automatic++ : number ? std::stoul(field) : arguments.positional.size();
        const Value* given = arguments.get(index, number ? "" : field);
        if (given == nullptr) fail(Exit::data, "format(): no argument for the field '{{{}}}'", field);
        if (value.is_markup() && !given->is_markup())
            append(result, escaped(to_text(*given, runtime.budget)), runtime.budget);
        else
            append_str(result, *given, runtime.budget);
        at = end;
    }
    return Value::text(std::move(result), value.is_markup());
}

Value joined(const Value& separator, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("join()", {"iterable"}, 1);
    Text text;
    bool first = true;
    for (const Value& each : iterate(*arguments.get(0, "iterable"), runtime.budget)) {
        if (!each.is(Kind::text)) fail(Exit::data, "join() needs items of type str, found {}", type_name(each));
        if (!std::exchange(first, false)) append(text, separator.as_text(), runtime.budget);
        append(text, each.as_text(), runtime.budget);
    }
    return Value::text(std::move(text), separator.is_markup());
}

Value text_method(const Value& value, const std::string& name, const Arguments& arguments, Runtime& runtime) {
    if (name == "split" || name == "rsplit") return split(value, name, arguments, runtime.budget);
    if (name == "strip" || name == "lstrip" || name == "rstrip") return strip(value, name, arguments);
    if (name == "startswith" || name == "endswith") return starts_or_ends(value, name, arguments, runtime.budget);
    if (name == "removeprefix" || name == "removesuffix") return without_affix(value, name, arguments);
    if (name == "find" || name == "count") return find_or_count(value, name, arguments);
    if (name == "replace") return replaced(value, arguments, runtime);
    if (name == "format") return format_text(value, arguments, runtime);
    if (name == "join") return joined(value, arguments, runtime);
    arguments.expect(name + "()", {}, 0);
    if (name == "upper") return mapped_case(value, upper_case, runtime);
    if (name == "lower") return mapped_case(value, lower_case, runtime);
    if (name == "capitalize") return capitalized(value, runtime);
    return texts(lines_of(value.as_text(), runtime.budget), value.is_markup());  // splitlines
}

Value dict_method(const Value& value, const std::string& name, const Arguments& arguments, Runtime& runtime) {
    if (name == "get") {
        arguments.expect("get()", {"key", "default"}, 1);
        const Value& key = *arguments.get(0, "key");
        for (const auto& [each, found] : value.items())
            if (equal(each, key, runtime.budget)) return found;
        const Value* otherwise = arguments.get(1, "default");
        return otherwise != nullptr ? *otherwise : Value::none();
    }
    arguments.expect(name + "()", {}, 0);
    Values values;
    runtime.budget.make(value.items().size());
    for (const auto& [key, each] : value.items())
        values.push_back(name == "keys" ? key : name == "values" ? each : Value::list({key, each}, Kind::tuple));
    Value view = Value::list(std::move(values), Kind::view);
    view.list_object().view = name == "keys" ? "dict_keys" : name == "values" ? "dict_values" : "dict_items";
    view.origin = value.origin;
    return view;
}

}  // namespace

bool is_method(const Value& value, const std::string& name) {
    const auto unsafe = [&](Names names) {
        if (in(name, names))
            fail(Exit::data, "{}.{}() would change a value, which templates must not do", type_name(value), name);
    };
    const auto unsupported = [&](Names names) {
        if (in(name, names)) fail(Exit::data, "the method {}.{}() is not supported", type_name(value), name);
    };
    switch (value.kind()) {
        case Kind::text:
            unsupported(kOtherTextMethods);
            return in(name, kTextMethods);
        case Kind::dict:
            unsafe(kDictMutators);
            unsupported({"copy", "fromkeys"});
            return in(name, kDictMethods);
        case Kind::list:
            unsafe(kListMutators);
            [[fallthrough]];
        case Kind::tuple:
            unsupported({"index", "count", "copy"});
            return false;
        default:
            return false;
    }
}

Value call_method(const Value& value, const std::string& name, const Arguments& arguments, Runtime& runtime) {
    runtime.budget.spend(1 + (value.is(Kind::text) ? value.as_text().size() / 64 : 0));
    Value result = value.is(Kind::text) ? text_method(value, name, arguments, runtime)
                                        : dict_method(value, name, arguments, runtime);
    if (result.origin == 0) result.origin = runtime.origin;
    return result;
}

}  // namespace colonnade::jinja
