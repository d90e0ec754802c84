#include "data/text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/io/limits.h"

namespace colonnade::jinja {
namespace {

constexpr size_t kNesting = limits::template_depth;  // of lists in lists: recursion over values stays bounded

/// A namespace may hold itself; a render empties all of them at its end.
size_t depth_of(const Value& value) {
    return value.object() == nullptr || value.is(Kind::name_space) ? 0 : value.object()->depth;
}

size_t checked_depth(size_t depth) {
    if (depth > kNesting) fail(Exit::data, "values nested deeper than {}", kNesting);
    return depth;
}

size_t depth_around(const Values& values) {
    size_t depth = 1;
    for (const Value& each : values) depth = std::max(depth, checked_depth(1 + depth_of(each)));
    return depth;
}

}  // namespace

Value Value::undefined(std::string reason) {
    Value value = text(reason);
    value.kind_ = Kind::undefined;
    return value;
}
Value Value::boolean(bool flag) {
    Value value(Kind::boolean);
    value.integer_ = flag;
    return value;
}
Value Value::integer(int64_t number) {
    Value value(Kind::integer);
    value.integer_ = number;
    return value;
}
Value Value::real(double number) {
    Value value(Kind::real);
    value.real_ = number;
    return value;
}
Value Value::text(Text text, bool markup) {
    Value value(Kind::text);
    auto object = std::make_shared<TextObject>();
    object->text = std::move(text);
    object->count(sizeof *object + object->text.size() + object->text.runs().size() * sizeof(Run));
    value.object_ = std::move(object);
    value.markup_ = markup;
    return value;
}
Value Value::list(Values values, Kind kind) {
    Value value(kind);
    auto object = std::make_shared<ListObject>();
    object->depth = depth_around(values);
    object->values = std::move(values);
    object->count(object->values.size() * sizeof(Value));
    value.object_ = std::move(object);
    return value;
}
Value Value::dict(Items items, Kind kind) {
    Value value(kind);
    auto object = std::make_shared<DictObject>();
    object->depth = 1;
    for (const auto& [key, each] : items) object->depth = std::max(object->depth, checked_depth(1 + depth_of(each)));
    object->items = std::move(items);
    object->count(object->items.size() * 2 * sizeof(Value));
    value.object_ = std::move(object);
    return value;
}
Value Value::function(std::string name, std::function<Value(const Arguments&)> call, const Value* bound) {
    Value value(Kind::function);
    auto object = std::make_shared<FunctionObject>();
    if (bound != nullptr) object->depth = checked_depth(1 + depth_of(*bound));
    object->name = std::move(name);
    object->call = std::move(call);
    value.object_ = std::move(object);
    return value;
}
Value Value::loop(Values values) {
    Value value(Kind::loop);
    auto object = std::make_shared<LoopObject>();
    object->depth = depth_around(values);
    object->values = std::move(values);
    object->count(object->values.size() * sizeof(Value));
    value.object_ = std::move(object);
    return value;
}

const Value* Value::find(std::string_view key) const {
    for (const auto& [name, value] : items())
        if (name.is(Kind::text) && name.bytes() == key) return &value;
    return nullptr;
}

const Value* Arguments::get(size_t index, std::string_view name) const {
    if (index < positional.size()) return &positional[index];
    for (const auto& [key, value] : keywords)
        if (key == name) return &value;
    return nullptr;
}

void Arguments::expect(std::string_view function, std::initializer_list<std::string_view> names,
                       size_t required) const {
    if (positional.size() > names.size())
        fail(Exit::data, "{} takes at most {} arguments, found {}", function, names.size(), positional.size());
    for (const auto& [key, value] : keywords) {
        const auto at = std::find(names.begin(), names.end(), key);
        if (at == names.end()) fail(Exit::data, "{} takes no argument named '{}'", function, key);
        if (static_cast<size_t>(at - names.begin()) < positional.size())
            fail(Exit::data, "{}: argument '{}' is given twice", function, key);
    }
    for (size_t i = 0; i < required; ++i)
        if (get(i, names.begin()[i]) == nullptr)
            fail(Exit::data, "{} lacks its argument '{}'", function, names.begin()[i]);
}

void set_item(Items& items, const Value& key, Value value, Budget& budget) {
    const auto same =
        std::find_if(items.begin(), items.end(), [&](const auto& each) { return equal(each.first, key, budget); });
    if (same != items.end())
        same->second = std::move(value);
    else
        items.emplace_back(key, std::move(value));
}

void append(Text& text, const Text& part, Budget& budget) {
    budget.write(part.size(), text.size());
    text.append(part);
}

std::string type_name(const Value& value) {
    static constexpr const char* kNames[] = {"Undefined", "NoneType",  "bool",     "int",  "float",
                                             "str",       "list",      "tuple",    "view", "generator",
                                             "dict",      "Namespace", "function", "loop"};
    return kNames[static_cast<size_t>(value.kind())];
}

std::string reason_of(const Value& undefined) {
    return undefined.object() ? undefined.bytes() : "a value is undefined";
}

bool is_true(const Value& value) {
    switch (value.kind()) {
        case Kind::undefined:
        case Kind::none:
            return false;
        case Kind::boolean:
        case Kind::integer:
            return value.as_integer() != 0;
        case Kind::real:
            return value.as_real() != 0;
        case Kind::text:
            return !value.as_text().empty();
        case Kind::list:
        case Kind::tuple:
        case Kind::view:
            return !value.values().empty();
        case Kind::dict:
            return !value.items().empty();
        default:
            return true;
    }
}

std::string format_real(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    char buffer[64];
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
    const std::string_view written(buffer, end - buffer);
    const size_t e = written.find('e');
    const int exponent = std::stoi(std::string(written.substr(e + 1)));
    if (exponent < -4 || exponent >= 16) return std::string(written);
    const auto fixed_end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed).ptr;
    std::string fixed(buffer, fixed_end);
    return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

namespace {

std::string hex_escape(char32_t character) {
    if (character < 0x100) return fmt::format("\\x{:02x}", static_cast<uint32_t>(character));
    if (character < 0x10000) return fmt::format("\\u{:04x}", static_cast<uint32_t>(character));
    return fmt::format("\\U{:08x}", static_cast<uint32_t>(character));
}

void append_quoted(Text& out, const Text& text) {
    const std::string& bytes = text.bytes();
    const char quote = bytes.find('\'') != std::string::npos && bytes.find('"') == std::string::npos ? '"' : '\'';
    out.append(std::string(1, quote), text.mark_at(0));
    for (size_t at = 0; at < bytes.size();) {
        const size_t size = character_length(bytes, at);
        const char32_t c = character_at(bytes, at);
        const Mark mark = text.mark_at(at);
        if (c == static_cast<unsigned char>(quote) || c == '\\')
            out.append(std::string("\\") + static_cast<char>(c), mark);
        else if (c == '\n' || c == '\r' || c == '\t')
            out.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", mark);
        else if (!is_python_printable(c))
            out.append(hex_escape(c), mark);
        else
            out.append(std::string_view(bytes).substr(at, size), mark);
        at += size;
    }
    out.append(std::string(1, quote), text.mark_at(bytes.size()));
}

void append_sequence(Text& out, const Value& value, Budget& budget) {
    const Mark mark{value.origin};
    const bool tuple = value.is(Kind::tuple);
    if (value.is(Kind::view)) out.append(std::string(value.list_object().view) + "(", mark);
    out.append(tuple ? "(" : "[", mark);
    bool first = true;
    for (const Value& each : value.values()) {
        if (!first) out.append(", ", mark);
        first = false;
        append_repr(out, each, budget);
    }
    if (tuple && value.values().size() == 1) out.append(",", mark);
    out.append(tuple ? ")" : "]", mark);
    if (value.is(Kind::view)) out.append(")", mark);
}

void append_dict(Text& out, const Value& value, Budget& budget) {
    const Mark mark{value.origin};
    out.append("{", mark);
    bool first = true;
    for (const auto& [key, each] : value.items()) {
        if (!first) out.append(", ", mark);
        first = false;
        append_repr(out, key, budget);
        out.append(": ", mark);
        append_repr(out, each, budget);
    }
    out.append("}", mark);
}

}  // namespace

void append_str(Text& out, const Value& value, Budget& budget) {
    budget.write(0, out.size());
    const Mark mark{value.origin};
    switch (value.kind()) {
        case Kind::undefined:
            return;
        case Kind::none:
            return out.append("None", mark);
        case Kind::boolean:
            return out.append(value.as_integer() != 0 ? "True" : "False", mark);
        case Kind::integer:
            return out.append(std::to_string(value.as_integer()), mark);
        case Kind::real:
            return out.append(format_real(value.as_real()), mark);
        case Kind::text:
            return append(out, value.as_text(), budget);
        case Kind::list:
        case Kind::tuple:
        case Kind::view:
            return append_sequence(out, value, budget);
        case Kind::dict:
            return append_dict(out, value, budget);
        default:
            fail(Exit::data, "a value of type {} cannot be printed", type_name(value));
    }
}

void append_repr(Text& out, const Value& value, Budget& budget) {
    if (value.is(Kind::text)) {
        budget.write(value.as_text().size(), out.size());
        append_quoted(out, value.as_text());
    } else if (value.is(Kind::undefined)) {
        out.append("Undefined", {value.origin});
    } else {
        append_str(out, value, budget);
    }
}

Text to_text(const Value& value, Budget& budget) {
    if (value.is(Kind::text)) return value.as_text();
    Text text;
    append_str(text, value, budget);
    return text;
}

namespace {

bool equal_dicts(const Value& a, const Value& b, Budget& budget) {
    if (a.items().size() != b.items().size()) return false;
    for (const auto& [key, value] : a.items()) {
        const auto same = std::find_if(b.items().begin(), b.items().end(),
                                       [&](const auto& item) { return equal(item.first, key, budget); });
        if (same == b.items().end() || !equal(value, same->second, budget)) return false;
    }
    return true;
}

}  // namespace

bool equal(const Value& a, const Value& b, Budget& budget) {
    budget.spend(1);
    if (a.is_number() && b.is_number()) {
        if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
        return a.as_real() == b.as_real();
    }
    if (a.kind() != b.kind()) return false;
    switch (a.kind()) {
        case Kind::undefined:
        case Kind::none:
            return true;
        case Kind::text:
            budget.spend(std::min(a.bytes().size(), b.bytes().size()) / 64);
            return a.bytes() == b.bytes();
        case Kind::dict:
            return equal_dicts(a, b, budget);
        case Kind::list:
        case Kind::tuple:
            return std::equal(a.values().begin(), a.values().end(), b.values().begin(), b.values().end(),
                              [&](const Value& x, const Value& y) { return equal(x, y, budget); });
        default:
            return a.object() == b.object();
    }
}

int compare(const Value& a, const Value& b, Budget& budget) {
    budget.spend(1);
    if (a.is_integral() && b.is_integral())
        return a.as_integer() < b.as_integer() ? -1 : a.as_integer() > b.as_integer();
    if (a.is_number() && b.is_number()) return a.as_real() < b.as_real() ? -1 : a.as_real() > b.as_real();
    if (a.is(Kind::text) && b.is(Kind::text)) {
        budget.spend(std::min(a.bytes().size(), b.bytes().size()) / 64);
        return a.bytes().compare(b.bytes());
    }
    if (a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
        const size_t both = std::min(a.values().size(), b.values().size());
        for (size_t i = 0; i < both; ++i)
            if (!equal(a.values()[i], b.values()[i], budget)) return compare(a.values()[i], b.values()[i], budget);
        return a.values().size() < b.values().size() ? -1 : a.values().size() > b.values().size();
    }
    for (const Value* side : {&a, &b})
        if (side->is(Kind::undefined)) fail(Exit::data, "{}", reason_of(*side));
    fail(Exit::data, "'{}' and '{}' cannot be ordered", type_name(a), type_name(b));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
    budget.spend(1);
    if (container.is(Kind::text)) {
        if (!item.is(Kind::text)) fail(Exit::data, "'in <str>' needs a str on its left, found {}", type_name(item));
        budget.spend(container.bytes().size() / 64);
        return find_text(container.bytes(), item.bytes()) != std::string::npos;
    }
    const Values values = iterate(container, budget);
    return std::any_of(values.begin(), values.end(), [&](const Value& each) { return equal(each, item, budget); });
}

Values iterate(const Value& value, Budget& budget) {
    Values values;
    switch (value.kind()) {
        case Kind::undefined:
            return values;
        case Kind::generator:
            if (std::exchange(value.list_object().consumed, true)) return values;
            [[fallthrough]];
        case Kind::list:
        case Kind::tuple:
        case Kind::view:
            budget.spend(value.values().size() / 8);
            return value.values();
        case Kind::dict:
            for (const auto& [key, each] : value.items()) values.push_back(key);
            budget.spend(values.size());
            return values;
        case Kind::text: {
            const std::string& bytes = value.bytes();
            for (size_t at = 0; at < bytes.size(); at += character_length(bytes, at)) {
                budget.make(1);
                values.push_back(
                    Value::text(value.as_text().part(at, at + character_length(bytes, at)), value.is_markup()));
            }
            return values;
        }
        default:
            fail(Exit::data, "'{}' object is not iterable", type_name(value));
    }
}

size_t length(const Value& value) {
    switch (value.kind()) {
        case Kind::undefined:
            return 0;
        case Kind::text:
            return count_characters(value.bytes());
        case Kind::list:
        case Kind::tuple:
        case Kind::view:
            return value.values().size();
        case Kind::dict:
            return value.items().size();
        case Kind::loop:
            return value.loop_object().values.size();
        default:
            fail(Exit::data, "a value of type {} has no length", type_name(value));
    }
}

Text escaped(const Text& text) {
    Text result;
    const std::string& bytes = text.bytes();
    size_t done = 0;
    for (size_t at = 0; at < bytes.size(); ++at) {
        const char* entity = bytes[at] == '&'    ? "&amp;"
                             : bytes[at] == '<'  ? "&lt;"
                             : bytes[at] == '>'  ? "&gt;"
                             : bytes[at] == '\'' ? "&#39;"
                             : bytes[at] == '"'  ? "&#34;"
                                                 : nullptr;
        if (entity == nullptr) continue;
        result.append_part(text, done, at);
        result.append(entity, text.mark_at(at));
        done = at + 1;
    }
    result.append_part(text, done, bytes.size());
    return result;
}

}  // namespace colonnade::jinja
