// Filters: value | name(arguments).

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "data/text/jinja/builtins.h"

namespace colonnade::jinja {

namespace {

using Filter = Value (*)(const Value&, const Arguments&, Runtime&);

bool flag(const Arguments& arguments, size_t index, std::string_view name) {
    const Value* value = arguments.get(index, name);
    return value != nullptr && is_true(*value);
}

/// The width of an indent as spaces, or a text that stands for them.
std::string indent_of(const Value& width, std::string_view filter) {
    constexpr int64_t kWidest = 1000;
    if (!width.is_integral() && !width.is(Kind::text))
        fail(Exit::data, "{} needs an integer or a str as its indent, found {}", filter, type_name(width));
    if (width.is(Kind::text) ? width.bytes().size() > kWidest : width.as_integer() > kWidest)
        fail(Exit::data, "{}: an indent of more than {}", filter, kWidest);
    return width.is(Kind::text) ? width.bytes() : std::string(std::max<int64_t>(0, width.as_integer()), ' ');
}

/// The value as a text; other types are printed.
Value as_text(const Value& value, Runtime& runtime) {
    return value.is(Kind::text) ? value : Value::text(to_text(value, runtime.budget));
}

Value generator(Values values, const Value& from) {
    Value result = Value::list(std::move(values), Kind::generator);
    result.origin = from.origin;
    return result;
}

Value tojson(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
    JsonStyle style;
    style.ensure_ascii = flag(arguments, 0, "ensure_ascii");
    style.sort_keys = flag(arguments, 3, "sort_keys");
    if (const Value* indent = arguments.get(1, "indent"); indent != nullptr && !indent->is(Kind::none)) {
        style.pretty = true;
        style.between = ",";
        style.indent = indent_of(*indent, "tojson");
    }
    if (const Value* separators = arguments.get(2, "separators");
        separators != nullptr && !separators->is(Kind::none)) {
        if (!separators->is_sequence() || separators->values().size() != 2 || !separators->values()[0].is(Kind::text) ||
            !separators->values()[1].is(Kind::text))
            fail(Exit::data, "tojson needs two texts as separators");
        style.between = separators->values()[0].bytes();
        style.after_key = separators->values()[1].bytes();
    }
    Text text;
    append_json(text, value, style, runtime.budget);
    return Value::text(std::move(text));
}

Value trim(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("trim", {"chars"}, 0);
    return call_method(as_text(value, runtime), "strip", arguments, runtime);
}

Value default_value(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("default", {"default_value", "boolean"}, 0);
    const bool replace = value.is(Kind::undefined) || (flag(arguments, 1, "boolean") && !is_true(value));
    if (!replace) return value;
    const Value* given = arguments.get(0, "default_value");
    return given != nullptr ? *given : Value::text("", {runtime.origin});
}

Value items_of(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("items", {}, 0);
    if (value.is(Kind::undefined)) return generator({}, value);
    if (!value.is(Kind::dict)) fail(Exit::data, "items needs a dict, found {}", type_name(value));
    return generator(call_method(value, "items", {}, runtime).values(), value);
}

/// Follows "a.b.0".
Value path_of(const Value& value, const Value& path, Runtime& runtime) {
    if (path.is_integral()) return item(value, path, runtime);
    if (!path.is(Kind::text)) fail(Exit::data, "an attribute must be a name, found {}", type_name(path));
    Value at = value;
    Arguments dot;
    dot.positional.push_back(Value::text("."));
    const Value names = call_method(path, "split", dot, runtime);
    for (const Value& name : names.values()) {
        const std::string& word = name.bytes();
        const bool number =
            !word.empty() && word.size() < 10 && word.find_first_not_of("0123456789") == std::string::npos;
        at = item(at, number ? Value::integer(std::stoll(word)) : name, runtime);
    }
    return at;
}

Value join(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("join", {"d", "attribute"}, 0);
    const Value* given = arguments.get(0, "d");
    const Text separator = given != nullptr ? to_text(*given, runtime.budget) : Text();
    const Value* path = arguments.get(1, "attribute");
    Text text;
    bool first = true;
    for (const Value& each : iterate(value, runtime.budget)) {
        if (!std::exchange(first, false)) append(text, separator, runtime.budget);
        append_str(text, path != nullptr ? path_of(each, *path, runtime) : each, runtime.budget);
    }
    return Value::text(std::move(text));
}

/// The key that sort, unique, min and max compare.
Value sort_key(const Value& value, const Value* path, bool exact_case, Runtime& runtime) {
    const Value key = path != nullptr && !path->is(Kind::none) ? path_of(value, *path, runtime) : value;
    return key.is(Kind::text) && !exact_case ? mapped_case(key, lower_case, runtime) : key;
}

Values sorted(const Values& values, const std::vector<Value>& keys, bool reverse, Runtime& runtime) {
    std::vector<size_t> order(values.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return reverse ? compare(keys[b], keys[a], runtime.budget) < 0 : compare(keys[a], keys[b], runtime.budget) < 0;
    });
    Values result;
    for (const size_t i : order) result.push_back(values[i]);
    return result;
}

Value sort(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("sort", {"reverse", "case_sensitive", "attribute"}, 0);
    const Values values = iterate(value, runtime.budget);
    std::vector<Value> keys;
    for (const Value& each : values)
        keys.push_back(sort_key(each, arguments.get(2, "attribute"), flag(arguments, 1, "case_sensitive"), runtime));
    return Value::list(sorted(values, keys, flag(arguments, 0, "reverse"), runtime));
}

Value dictsort(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("dictsort", {"case_sensitive", "by", "reverse"}, 0);
    if (!value.is(Kind::dict)) fail(Exit::data, "dictsort needs a dict, found {}", type_name(value));
    const Value* by = arguments.get(1, "by");
    const bool by_value = by != nullptr && by->is(Kind::text) && by->bytes() == "value";
    if (by != nullptr && !by_value && !(by->is(Kind::text) && by->bytes() == "key"))
        fail(Exit::data, "dictsort sorts by 'key' or 'value'");
    const Values pairs = call_method(value, "items", {}, runtime).values();
    std::vector<Value> keys;
    for (const Value& pair : pairs)
        keys.push_back(
            sort_key(pair.values()[by_value ? 1 : 0], nullptr, flag(arguments, 0, "case_sensitive"), runtime));
    return Value::list(sorted(pairs, keys, flag(arguments, 2, "reverse"), runtime));
}

Value unique(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("unique", {"case_sensitive", "attribute"}, 0);
    Values kept, keys;
    for (const Value& each : iterate(value, runtime.budget)) {
        Value key = sort_key(each, arguments.get(1, "attribute"), flag(arguments, 0, "case_sensitive"), runtime);
        if (std::any_of(keys.begin(), keys.end(), [&](const Value& k) { return equal(k, key, runtime.budget); }))
            continue;
        keys.push_back(std::move(key));
        kept.push_back(each);
    }
    return generator(std::move(kept), value);
}

Value extreme(const Value& value, const Arguments& arguments, Runtime& runtime, int sign) {
    arguments.expect(sign < 0 ? "min" : "max", {"case_sensitive", "attribute"}, 0);
    Value best = Value::undefined("no item: the sequence is empty"), best_key;
    bool first = true;
    for (const Value& each : iterate(value, runtime.budget)) {
        Value key = sort_key(each, arguments.get(1, "attribute"), flag(arguments, 0, "case_sensitive"), runtime);
        if (!std::exchange(first, false) && compare(key, best_key, runtime.budget) * sign <= 0) continue;
        best = each;
        best_key = std::move(key);
    }
    return best;
}
Value smallest(const Value& value, const Arguments& arguments, Runtime& runtime) {
    return extreme(value, arguments, runtime, -1);
}
Value largest(const Value& value, const Arguments& arguments, Runtime& runtime) {
    return extreme(value, arguments, runtime, 1);
}

/// What map, select and their kin visit: nothing for a false value, such as none.
Values visited(const Value& value, Runtime& runtime) {
    return is_true(value) ? iterate(value, runtime.budget) : Values();
}

/// The arguments from number `first` on.
Arguments rest_of(const Arguments& arguments, size_t first) {
    Arguments rest = arguments;
    rest.positional.erase(rest.positional.begin(), rest.positional.begin() + std::min(first, rest.positional.size()));
    return rest;
}

Value map(const Value& value, const Arguments& arguments, Runtime& runtime) {
    Values results;
    const Values values = visited(value, runtime);
    if (arguments.positional.empty()) {
        arguments.expect("map", {"attribute", "default"}, 1);
        for (const Value& each : values) {
            Value found = path_of(each, *arguments.get(0, "attribute"), runtime);
            const Value* otherwise = arguments.get(1, "default");
            results.push_back(found.is(Kind::undefined) && otherwise != nullptr ? *otherwise : std::move(found));
        }
    } else {
        if (!arguments.positional[0].is(Kind::text)) fail(Exit::data, "map needs the name of a filter");
        const Arguments rest = rest_of(arguments, 1);
        for (const Value& each : values)
            results.push_back(apply_filter(arguments.positional[0].bytes(), each, rest, runtime));
    }
    return generator(std::move(results), value);
}

/// select, reject, selectattr and rejectattr: keeps the items whose test is `wanted`.
struct Selection {
    bool by_attribute, wanted;
};
template <Selection selection>
Value select(const Value& value, const Arguments& arguments, Runtime& runtime) {
    const size_t first = selection.by_attribute ? 1 : 0;
    if (arguments.positional.size() < first) fail(Exit::data, "selectattr and rejectattr need an attribute");
    const Value* test = first < arguments.positional.size() ? &arguments.positional[first] : nullptr;
    if (test != nullptr && !test->is(Kind::text))
        fail(Exit::data, "a test's name must be a str, found {}", type_name(*test));
    const Arguments rest = rest_of(arguments, first + 1);
    Values kept;
    for (const Value& each : visited(value, runtime)) {
        const Value subject = selection.by_attribute ? path_of(each, arguments.positional[0], runtime) : each;
        const bool holds = test != nullptr ? apply_test(test->bytes(), subject, rest, runtime) : is_true(subject);
        if (holds == selection.wanted) kept.push_back(each);
    }
    return generator(std::move(kept), value);
}

Value replace(const Value& value, const Arguments& arguments, Runtime& runtime) {
    return Value::text(replaced(as_text(value, runtime), arguments, runtime).as_text());
}

Value indent(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("indent", {"width", "first", "blank"}, 0);
    const Value* width = arguments.get(0, "width");
    const Mark mark{runtime.origin};
    const std::string space = width != nullptr ? indent_of(*width, "indent") : "    ";
    const Value given = as_text(value, runtime);
    Text source = given.as_text();
    source.append("\n", mark);
    Text result;
    bool first = true;
    for (const Text& line : lines_of(source, runtime.budget)) {
        const bool head = std::exchange(first, false);
        runtime.budget.write(space.size() + line.size(), result.size());
        if (!head) result.append("\n", source.mark_at(0));
        if (head ? flag(arguments, 1, "first") : flag(arguments, 2, "blank") || !line.empty())
            result.append(space, mark);
        result.append(line);
    }
    return Value::text(std::move(result), given.is_markup());
}

/// A text as from_chars reads the numbers that Python reads: without white space, a plus sign and `_` between digits.
std::string number_text(const std::string& bytes) {
    const Trimmed kept = trimmed(bytes, "", Side::both);
    const auto is_digit = [&](size_t at) { return at < kept.end && bytes[at] >= '0' && bytes[at] <= '9'; };
    std::string text;
    for (size_t at = kept.begin; at < kept.end; ++at)
        if (bytes[at] != '_' || at == kept.begin || !is_digit(at - 1) || !is_digit(at + 1)) text += bytes[at];
    if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.erase(0, 1);
    return text;
}

/// Returns whether the whole text is a number. Throws for one that the type cannot hold.
template <typename Number>
bool read_number(const std::string& text, Number& number) {
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    if (read.ptr != end || read.ec == std::errc::invalid_argument) return false;
    if (read.ec == std::errc::result_out_of_range) fail(Exit::data, "the number {:.40} exceeds 64 bits", text);
    return true;
}

Value to_integer(const Value& value, const Arguments& arguments, Runtime&) {
    arguments.expect("int", {"default"}, 0);
    const Value* given = arguments.get(0, "default");
    const Value otherwise = given != nullptr ? *given : Value::integer(0);
    if (value.is(Kind::undefined)) fail(Exit::data, "{}", reason_of(value));
    if (value.is_integral()) return Value::integer(value.as_integer());
    double real = value.is(Kind::real) ? value.as_real() : 0;
    if (value.is(Kind::text)) {
        const std::string text = number_text(value.bytes());
        if (int64_t integer = 0; read_number(text, integer)) return Value::integer(integer);
        if (!read_number(text, real)) return otherwise;
    } else if (!value.is(Kind::real)) {
        return otherwise;
    }
    if (!std::isfinite(real)) return otherwise;
    if (std::abs(real) >= 9.2e18) fail(Exit::data, "int: {} exceeds 64 bits", format_real(real));
    return Value::integer(static_cast<int64_t>(real));
}

Value to_real(const Value& value, const Arguments& arguments, Runtime&) {
    arguments.expect("float", {"default"}, 0);
    const Value* given = arguments.get(0, "default");
    if (value.is(Kind::undefined)) fail(Exit::data, "{}", reason_of(value));
    if (value.is_number()) return Value::real(value.as_real());
    if (double real = 0; value.is(Kind::text) && read_number(number_text(value.bytes()), real))
        return Value::real(real);
    return given != nullptr ? *given : Value::real(0);
}

Value absolute(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("abs", {}, 0);
    if (!value.is_number()) fail(Exit::data, "abs needs a number, found {}", type_name(value));
    if (value.is(Kind::real)) return Value::real(std::abs(value.as_real()));
    return value.as_integer() < 0 ? binary("-", Value::integer(0), value, runtime) : Value::integer(value.as_integer());
}

/// A filter without arguments.
template <Value (*function)(const Value&, Runtime&)>
Value plain(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("this filter", {}, 0);
    return function(value, runtime);
}

Value first_of(const Value& value, Runtime& runtime) {
    const Values values = iterate(value, runtime.budget);
    return values.empty() ? Value::undefined("no item: the sequence is empty") : values.front();
}
Value last_of(const Value& value, Runtime& runtime) {
    const Values values = iterate(value, runtime.budget);
    return values.empty() ? Value::undefined("no item: the sequence is empty") : values.back();
}
Value capitalize(const Value& value, Runtime& runtime) {
    return capitalized(as_text(value, runtime), runtime);
}
Value lower(const Value& value, Runtime& runtime) {
    return mapped_case(as_text(value, runtime), lower_case, runtime);
}
Value upper(const Value& value, Runtime& runtime) {
    return mapped_case(as_text(value, runtime), upper_case, runtime);
}
Value escape(const Value& value, Runtime& runtime) {
    if (value.is_markup()) return value;
    const Text text = to_text(value, runtime.budget);
    runtime.budget.write(text.size());
    return Value::text(escaped(text), true);
}
Value safe(const Value& value, Runtime& runtime) {
    return Value::text(to_text(value, runtime.budget), true);
}

Value reversed(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("reverse", {}, 0);
    const Value step = Value::integer(-1);
    if (value.is(Kind::text)) return slice(value, nullptr, nullptr, &step, runtime);
    Values values = iterate(value, runtime.budget);
    std::reverse(values.begin(), values.end());
    return generator(std::move(values), value);
}

Value as_list(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("list", {}, 0);
    Value list = Value::list(iterate(value, runtime.budget));
    list.origin = value.origin;
    return list;
}

Value length_of(const Value& value, const Arguments& arguments, Runtime& runtime) {
    arguments.expect("length", {}, 0);
    if (value.is(Kind::text)) runtime.budget.spend(value.as_text().size() / 64);
    return Value::integer(static_cast<int64_t>(length(value)));
}

const std::map<std::string, Filter>& filters() {
    static const std::map<std::string, Filter> known = {
        {"abs", absolute},
        {"capitalize", plain<capitalize>},
        {"count", length_of},
        {"d", default_value},
        {"default", default_value},
        {"dictsort", dictsort},
        {"e", plain<escape>},
        {"escape", plain<escape>},
        {"first", plain<first_of>},
        {"float", to_real},
        {"indent", indent},
        {"int", to_integer},
        {"items", items_of},
        {"join", join},
        {"last", plain<last_of>},
        {"length", length_of},
        {"list", as_list},
        {"lower", plain<lower>},
        {"map", map},
        {"max", largest},
        {"min", smallest},
        {"reject", select<{.by_attribute = false, .wanted = false}>},
        {"rejectattr", select<{.by_attribute = true, .wanted = false}>},
        {"replace", replace},
        {"reverse", reversed},
        {"safe", plain<safe>},
        {"select", select<{.by_attribute = false, .wanted = true}>},
        {"selectattr", select<{.by_attribute = true, .wanted = true}>},
        {"sort", sort},
        {"string", plain<as_text>},
        {"tojson", tojson},
        {"trim", trim},
        {"unique", unique},
        {"upper", plain<upper>},
    };
    return known;
}

}  // namespace

bool has_filter(const std::string& name) {
    return filters().count(name) > 0;
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments, Runtime& runtime) {
    const auto found = filters().find(name);
    if (found == filters().end()) fail(Exit::data, "the filter '{}' is not supported", name);
    runtime.budget.spend(1);
    Value result = found->second(value, arguments, runtime);
    if (result.origin == 0) result.origin = runtime.origin;
    return result;
}

}  // namespace colonnade::jinja
