// Attributes, items, slices and operators.

#include <algorithm>
#include <cmath>

#include "data/text/jinja/builtins.h"

namespace colonnade::jinja {
namespace {

std::string object_name(const Value& value) {
    return type_name(value) + " object";
}

Value missing(const Value& value, const std::string& name) {
    return Value::undefined(fmt::format("'{}' has no attribute '{}'", object_name(value), name));
}

Value loop_attribute(const Value& value, const std::string& name) {
    const LoopObject& loop = value.loop_object();
    const auto index = static_cast<int64_t>(loop.index), size = static_cast<int64_t>(loop.values.size());
    if (name == "index") return Value::integer(index + 1);
    if (name == "index0") return Value::integer(index);
    if (name == "revindex") return Value::integer(size - index);
    if (name == "revindex0") return Value::integer(size - index - 1);
    if (name == "first") return Value::boolean(index == 0);
    if (name == "last") return Value::boolean(index + 1 == size);
    if (name == "length") return Value::integer(size);
    if (name == "depth" || name == "depth0") return Value::integer(name == "depth" ? 1 : 0);  // counts recursive loops
    if (name == "previtem") return index > 0 ? loop.values[index - 1] : Value::undefined("there is no previous item");
    if (name == "nextitem")
        return index + 1 < size ? loop.values[index + 1] : Value::undefined("there is no next item");
    if (name == "cycle" || name == "changed") fail(Exit::data, "loop.{} is not supported", name);
    return missing(value, name);
}

}  // namespace

Value attribute(const Value& value, const std::string& name, Runtime& runtime) {
    if (value.is(Kind::undefined)) fail(Exit::data, "{}", reason_of(value));
    if (value.is(Kind::loop)) return loop_attribute(value, name);
    if (value.is(Kind::name_space) || value.is(Kind::dict)) runtime.budget.spend(value.items().size() / 16);
    if (value.is(Kind::name_space)) {
        const Value* found = value.find(name);
        return found != nullptr ? *found : missing(value, name);
    }
    if (is_method(value, name))
        return Value::function(
            name,
            [value, name, &runtime](const Arguments& arguments) {
                return call_method(value, name, arguments, runtime);
            },
            &value);
    if (value.is(Kind::dict))
        if (const Value* found = value.find(name)) return *found;
    return missing(value, name);
}

Value item(const Value& value, const Value& key, Runtime& runtime) {
    if (value.is(Kind::undefined)) fail(Exit::data, "{}", reason_of(value));
    if (value.is(Kind::dict)) {
        for (const auto& [name, each] : value.items())
            if (equal(name, key, runtime.budget)) return each;
    } else if (key.is_integral() && (value.is(Kind::list) || value.is(Kind::tuple) || value.is(Kind::text))) {
        const auto size = static_cast<int64_t>(length(value));
        if (value.is(Kind::text)) runtime.budget.spend(value.bytes().size() / 64);
        const int64_t index = key.as_integer() < 0 ? key.as_integer() + size : key.as_integer();
        if (index >= 0 && index < size) {
            if (!value.is(Kind::text)) return value.values()[index];
            const size_t begin = byte_of_character(value.bytes(), index);
            return Value::text(value.as_text().part(begin, begin + character_length(value.bytes(), begin)),
                               value.is_markup());
        }
    }
    if (key.is(Kind::text))
        return value.is(Kind::dict) && !is_method(value, key.bytes()) ? missing(value, key.bytes())
                                                                      : attribute(value, key.bytes(), runtime);
    return Value::undefined(
        fmt::format("{} has no element {}", object_name(value), to_text(key, runtime.budget).bytes()));
}

Value slice(const Value& value, const Value* begin, const Value* end, const Value* step, Runtime& runtime) {
    const auto bound = [](const Value* given, const char* what) -> const Value* {
        if (given == nullptr || given->is(Kind::none)) return nullptr;
        if (!given->is_integral())
            fail(Exit::data, "a slice's {} must be an integer, found {}", what, type_name(*given));
        return given;
    };
    if (value.is(Kind::undefined)) fail(Exit::data, "{}", reason_of(value));
    if (!value.is(Kind::text) && !value.is(Kind::list) && !value.is(Kind::tuple))
        return Value::undefined(fmt::format("{} has no slices", object_name(value)));
    const auto size = static_cast<int64_t>(length(value));
    if (value.is(Kind::text)) runtime.budget.spend(value.bytes().size() / 64);
    const Value* given_step = bound(step, "step");
    const int64_t stride = given_step != nullptr ? given_step->as_integer() : 1;
    if (stride == 0) fail(Exit::data, "a slice's step must not be 0");
    const auto clamp = [&](const Value* given, int64_t otherwise) {
        if (given == nullptr) return otherwise;
        const int64_t index = given->as_integer() < 0 ? given->as_integer() + size : given->as_integer();
        return stride > 0 ? std::clamp<int64_t>(index, 0, size) : std::clamp<int64_t>(index, -1, size - 1);
    };
    const int64_t first = clamp(bound(begin, "begin"), stride > 0 ? 0 : size - 1);
    const int64_t last = clamp(bound(end, "end"), stride > 0 ? size : -1);
    if (value.is(Kind::text) && stride == 1) {
        const size_t from = byte_of_character(value.bytes(), first);
        const size_t to =
            last > first ? from + byte_of_character(std::string_view(value.bytes()).substr(from), last - first) : from;
        runtime.budget.write(to - from);
        return Value::text(value.as_text().part(from, to), value.is_markup());
    }
    const Values from = iterate(value, runtime.budget);
    Values taken;
    const int64_t reach = std::min(std::abs(stride), size + 1);  // a larger step visits the same items
    for (int64_t i = first; stride > 0 ? i < last : i > last; i += stride > 0 ? reach : -reach)
        taken.push_back(from[i]);
    if (!value.is(Kind::text)) {
        Value result = Value::list(std::move(taken), value.kind());
        result.origin = value.origin;
        return result;
    }
    Text text;
    for (const Value& each : taken) text.append(each.as_text());
    return Value::text(std::move(text), value.is_markup());
}

namespace {

[[noreturn]] void refuse_operands(const std::string& symbol, const Value& a, const Value& b) {
    for (const Value* side : {&a, &b})
        if (side->is(Kind::undefined)) fail(Exit::data, "{}", reason_of(*side));
    fail(Exit::data, "the operator {} does not take '{}' and '{}'", symbol, type_name(a), type_name(b));
}

Value repeated(const Value& value, int64_t times, Runtime& runtime) {
    const size_t count = times < 0 ? 0 : static_cast<size_t>(times);
    const size_t size = value.is(Kind::text) ? value.as_text().size() : value.values().size();
    if (size > 0 && count > runtime.budget.limits().text_bytes / size)
        fail(Exit::data, "a value repeated {} times is too long", count);
    runtime.budget.spend(value.is(Kind::text) ? size * count / 64 : size * count);
    if (value.is(Kind::text)) {
        Text text;
        for (size_t i = 0; i < count && size > 0; ++i) text.append(value.as_text());
        return Value::text(std::move(text), value.is_markup());
    }
    runtime.budget.hold(size * count * sizeof(Value));
    Values values;
    for (size_t i = 0; i < count && size > 0; ++i)
        values.insert(values.end(), value.values().begin(), value.values().end());
    return Value::list(std::move(values), value.kind());
}

Value integers(char symbol, int64_t a, int64_t b) {
    int64_t result = 0;
    bool overflow = false;
    if ((symbol == '%' || symbol == 'f') && b == 0) fail(Exit::data, "integer division by zero");
    if (symbol == '+') overflow = __builtin_add_overflow(a, b, &result);
    if (symbol == '-') overflow = __builtin_sub_overflow(a, b, &result);
    if (symbol == '*') overflow = __builtin_mul_overflow(a, b, &result);
    if (symbol == '%' || symbol == 'f') {
        if (b == -1) {
            if (symbol == 'f') overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
        } else {
            const bool below = a % b != 0 && (a < 0) != (b < 0);
            result = symbol == '%' ? a % b + (below ? b : 0) : a / b - (below ? 1 : 0);
        }
    }
    if (overflow) fail(Exit::data, "an integer beyond 64 bits");
    return Value::integer(result);
}

Value reals(char symbol, double a, double b) {
    if (symbol == '+') return Value::real(a + b);
    if (symbol == '-') return Value::real(a - b);
    if (symbol == '*') return Value::real(a * b);
    if (b == 0) fail(Exit::data, "division by zero");
    if (symbol == '/') return Value::real(a / b);
    // As Python: the quotient is that of what the rest leaves, the rest has the sign of b.
    double rest = std::fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b, quotient -= 1;
    if (symbol == '%') return Value::real(rest != 0 ? rest : std::copysign(0.0, b));
    return Value::real(quotient != 0 ? std::round(quotient) : std::copysign(0.0, a / b));
}

Value sum_of(const Value& a, const Value& b, Runtime& runtime) {
    if (a.is(Kind::text) && b.is(Kind::text)) {
        runtime.budget.write(a.as_text().size() + b.as_text().size());
        const bool markup = a.is_markup() || b.is_markup();
        Text text = markup && !a.is_markup() ? escaped(a.as_text()) : a.as_text();
        text.append(markup && !b.is_markup() ? escaped(b.as_text()) : b.as_text());
        return Value::text(std::move(text), markup);
    }
    if (a.kind() != b.kind() || (!a.is(Kind::list) && !a.is(Kind::tuple))) refuse_operands("+", a, b);
    runtime.budget.spend(a.values().size() + b.values().size());
    runtime.budget.hold((a.values().size() + b.values().size()) * sizeof(Value));
    Values values = a.values();
    values.insert(values.end(), b.values().begin(), b.values().end());
    return Value::list(std::move(values), a.kind());
}

}  // namespace

Value binary(const std::string& symbol, const Value& a, const Value& b, Runtime& runtime) {
    Value result;
    if (a.is_number() && b.is_number()) {
        const char sign = symbol == "//" ? 'f' : symbol[0];
        result = a.is_integral() && b.is_integral() && sign != '/' ? integers(sign, a.as_integer(), b.as_integer())
                                                                   : reals(sign, a.as_real(), b.as_real());
    } else if (symbol == "+") {
        result = sum_of(a, b, runtime);
    } else if (symbol == "*" && a.is_integral() && (b.is(Kind::text) || b.is(Kind::list) || b.is(Kind::tuple))) {
        result = repeated(b, a.as_integer(), runtime);
    } else if (symbol == "*" && b.is_integral() && (a.is(Kind::text) || a.is(Kind::list) || a.is(Kind::tuple))) {
        result = repeated(a, b.as_integer(), runtime);
    } else if (symbol == "%" && a.is(Kind::text)) {
        fail(Exit::data, "formatting with % is not supported");
    } else {
        refuse_operands(symbol, a, b);
    }
    result.origin = runtime.origin;
    return result;
}

}  // namespace colonnade::jinja
