// Expressions and globals.

#include <algorithm>
#include <array>
#include <ctime>

#include "data/text/jinja/interpreter.h"

namespace colonnade::jinja {

Value Interpreter::own(Value value) {
    value.origin = runtime_.origin;
    return value;
}

Value Interpreter::evaluate(const Node& node) {
    Budget& budget = runtime_.budget;
    budget.spend(1);
    if (++budget.depth > options_.limits.depth)
        fail(Exit::data, "blocks, expressions and macros nested deeper than {}: an endless recursion?",
             options_.limits.depth);
    at_ = &node;
    Value value = evaluate_form(node);
    --budget.depth;
    return value;
}

Value Interpreter::evaluate_form(const Node& node) {
    switch (node.form) {
        case Form::constant:
            return evaluate_constant(node);
        case Form::name:
            return evaluate_name(node);
        case Form::captured:
            return captured_;
        case Form::list:
            return own(Value::list(all_of(node)));
        case Form::tuple:
            return own(Value::list(all_of(node), Kind::tuple));
        case Form::dict:
            return evaluate_dict(node);
        case Form::choice:
            if (is_true(evaluate(*node.parts[1]))) return evaluate(*node.parts[0]);
            return node.parts[2] ? evaluate(*node.parts[2])
                                 : Value::undefined("an inline if without else gave no value");
        case Form::both: {
            Value first = evaluate(*node.parts[0]);
            return is_true(first) ? evaluate(*node.parts[1]) : first;
        }
        case Form::either: {
            Value first = evaluate(*node.parts[0]);
            return is_true(first) ? first : evaluate(*node.parts[1]);
        }
        case Form::negation:
            return own(Value::boolean(!is_true(evaluate(*node.parts[0]))));
        case Form::comparison:
            return evaluate_comparison(node);
        case Form::binary: {
            const Value a = evaluate(*node.parts[0]), b = evaluate(*node.parts[1]);
            at_ = &node;
            return binary(node.word, a, b, runtime_);
        }
        case Form::unary:
            return evaluate_unary(node);
        case Form::join:
            return evaluate_join(node);
        case Form::attribute: {
            const Value value = evaluate(*node.parts[0]);
            at_ = &node;
            return attribute(value, node.word, runtime_);
        }
        case Form::item: {
            const Value value = evaluate(*node.parts[0]), key = evaluate(*node.parts[1]);
            at_ = &node;
            return item(value, key, runtime_);
        }
        case Form::slice:
            return evaluate_slice(node);
        case Form::call:
            return evaluate_call(node);
        case Form::filter:
        case Form::test: {
            const bool filter = node.form == Form::filter;
            if (!(filter ? has_filter : has_test)(node.word))
                fail(Exit::data, "the {} '{}' is not supported", filter ? "filter" : "test", node.word);
            const Value value = evaluate(*node.parts[0]);
            const Arguments arguments = arguments_of(node);
            at_ = &node;
            if (filter) return apply_filter(node.word, value, arguments, runtime_);
            return own(Value::boolean(apply_test(node.word, value, arguments, runtime_)));
        }
        default:
            fail(Exit::internal, "a statement in place of an expression");
    }
}

Value Interpreter::evaluate_constant(const Node& node) {
    if (!node.value.is(Kind::text)) return own(node.value);
    return Value::text(node.value.bytes(), {runtime_.origin});
}

Value Interpreter::evaluate_name(const Node& node) {
    if (const Value* value = scope_->find(node.word, runtime_.budget)) return *value;
    if (is_global(node.word))
        return Value::function(node.word,
                               [this, &node](const Arguments& arguments) { return call_global(node.word, arguments); });
    for (const char* known : {"lipsum", "cycler", "joiner", "caller", "varargs", "kwargs", "self"})
        if (node.word == known) fail(Exit::data, "the global '{}' is not supported", known);
    return Value::undefined(fmt::format("'{}' is undefined", node.word));
}

Values Interpreter::all_of(const Node& node) {
    Values values;
    runtime_.budget.make(1);
    for (const NodePtr& part : node.parts) values.push_back(evaluate(*part));
    return values;
}

Value Interpreter::evaluate_dict(const Node& node) {
    Items items;
    runtime_.budget.make(1);
    for (size_t i = 0; i < node.parts.size(); i += 2) {
        const Value key = evaluate(*node.parts[i]);
        Value value = evaluate(*node.parts[i + 1]);
        if (!key.is(Kind::text) && !key.is_number() && !key.is(Kind::none))
            fail(Exit::data, "a dict's key must not be of type {}", type_name(key));
        set_item(items, key, std::move(value), runtime_.budget);
    }
    return own(Value::dict(std::move(items)));
}

bool Interpreter::compared(const std::string& symbol, const Value& a, const Value& b) {
    if (symbol == "==") return equal(a, b, runtime_.budget);
    if (symbol == "!=") return !equal(a, b, runtime_.budget);
    if (symbol == "in") return contains(b, a, runtime_.budget);
    if (symbol == "not in") return !contains(b, a, runtime_.budget);
    const int order = compare(a, b, runtime_.budget);
    if (symbol == "<") return order < 0;
    if (symbol == "<=") return order <= 0;
    return symbol == ">" ? order > 0 : order >= 0;
}

Value Interpreter::evaluate_comparison(const Node& node) {
    Value left = evaluate(*node.parts[0]);
    for (size_t i = 1; i < node.parts.size(); ++i) {
        Value right = evaluate(*node.parts[i]);
        at_ = &node;
        if (!compared(node.words[i - 1], left, right)) return own(Value::boolean(false));
        left = std::move(right);
    }
    return own(Value::boolean(true));
}

Value Interpreter::evaluate_unary(const Node& node) {
    const Value value = evaluate(*node.parts[0]);
    at_ = &node;
    if (!value.is_number()) fail(Exit::data, "the sign {} needs a number, found {}", node.word, type_name(value));
    if (node.word == "-" && value.is(Kind::real)) return own(Value::real(-value.as_real()));
    return binary(node.word, Value::integer(0), value, runtime_);
}

Value Interpreter::evaluate_join(const Node& node) {
    Text text;
    for (const NodePtr& part : node.parts) {
        const Value value = evaluate(*part);
        at_ = &node;
        append_str(text, value, runtime_.budget);
    }
    return Value::text(std::move(text));
}

Value Interpreter::evaluate_slice(const Node& node) {
    const Value value = evaluate(*node.parts[0]);
    Value bounds[3];
    for (size_t i = 0; i < 3; ++i)
        if (node.parts[i + 1]) bounds[i] = evaluate(*node.parts[i + 1]);
    const auto bound = [&](size_t i) { return node.parts[i + 1] ? &bounds[i] : nullptr; };
    at_ = &node;
    return slice(value, bound(0), bound(1), bound(2), runtime_);
}

Arguments Interpreter::arguments_of(const Node& node) {
    Arguments arguments;
    arguments.origin = runtime_.origin;
    for (size_t i = 1; i < node.parts.size(); ++i) {
        Value value = evaluate(*node.parts[i]);
        if (node.words[i - 1].empty())
            arguments.positional.push_back(std::move(value));
        else
            arguments.keywords.emplace_back(node.words[i - 1], std::move(value));
    }
    return arguments;
}

Value Interpreter::evaluate_call(const Node& node) {
    const Value function = evaluate(*node.parts[0]);
    if (function.is(Kind::undefined)) fail(Exit::data, "{}", reason_of(function));
    if (!function.is(Kind::function)) fail(Exit::data, "a value of type {} cannot be called", type_name(function));
    const Arguments arguments = arguments_of(node);
    at_ = &node;
    return function.as_function().call(arguments);
}

Value Interpreter::call_global(const std::string& name, const Arguments& arguments) {
    if (name == "namespace") return make_namespace(arguments);
    if (name == "range") return make_range(arguments);
    if (name == "dict") {
        if (!arguments.positional.empty()) fail(Exit::data, "dict() takes named values only");
        Items items;
        for (const auto& [key, value] : arguments.keywords)
            items.emplace_back(Value::text(key, {runtime_.origin}), value);
        return own(Value::dict(std::move(items)));
    }
    if (name == "raise_exception") {
        arguments.expect(name, {"message"}, 1);
        fail(Exit::data, "the template refuses the chat: {}",
             to_text(*arguments.get(0, "message"), runtime_.budget).bytes());
    }
    arguments.expect(name, {"format"}, 1);
    const Value& pattern = *arguments.get(0, "format");
    if (!pattern.is(Kind::text)) fail(Exit::data, "strftime_now needs a str, found {}", type_name(pattern));
    if (!options_.clock) fail(Exit::data, "strftime_now needs a fixed date");
    return Value::text(format_time(*options_.clock, pattern.bytes()), {runtime_.origin});
}

Value Interpreter::make_namespace(const Arguments& arguments) {
    Items items;
    if (arguments.positional.size() > 1)
        fail(Exit::data, "namespace() takes at most one dict, found {}", arguments.positional.size());
    for (const Value& each : arguments.positional) {
        if (!each.is(Kind::dict))
            fail(Exit::data, "namespace() takes a dict and named values, found {}", type_name(each));
        items = each.items();
        runtime_.budget.spend(items.size());
    }
    for (const auto& [key, value] : arguments.keywords) set_item(items, Value::text(key), value, runtime_.budget);
    runtime_.budget.make(1);
    return namespaces_.emplace_back(Value::dict(std::move(items), Kind::name_space));
}

Value Interpreter::make_range(const Arguments& arguments) {
    constexpr int64_t kMost = 100000;  // as Jinja's sandbox
    std::array<int64_t, 3> given = {0, 0, 1};
    const Values& values = arguments.positional;
    if (values.empty() || values.size() > 3 || !arguments.keywords.empty())
        fail(Exit::data, "range takes 1 to 3 integers");
    for (size_t i = 0; i < values.size(); ++i) {
        if (!values[i].is_integral()) fail(Exit::data, "range takes integers, found {}", type_name(values[i]));
        given[values.size() == 1 ? 1 : i] = values[i].as_integer();
    }
    const auto [begin, end, step] = given;
    if (step == 0) fail(Exit::data, "range's step must not be 0");
    Values numbers;
    for (__int128 i = begin; step > 0 ? i < end : i > end; i += step) {
        if (numbers.size() == kMost) fail(Exit::data, "a range of more than {} numbers", kMost);
        numbers.push_back(own(Value::integer(static_cast<int64_t>(i))));
    }
    runtime_.budget.spend(numbers.size());
    return own(Value::list(std::move(numbers)));
}

std::string format_time(const Clock& clock, const std::string& pattern) {
    static constexpr std::string_view kKnown = "aAbBcdDeFgGhHIjklmMnpPrRStTuUVwWxXyY%";
    std::tm time = {};
    time.tm_year = clock.year - 1900, time.tm_mon = clock.month - 1, time.tm_mday = clock.day;
    time.tm_hour = clock.hour, time.tm_min = clock.minute, time.tm_sec = clock.second;
    const std::tm given = time;
    timegm(&time);  // adds the days of the week and of the year, and changes what is no date
    if (clock.year < 1 || clock.year > 9999 || time.tm_mon != given.tm_mon || time.tm_mday != given.tm_mday ||
        time.tm_hour != given.tm_hour || time.tm_min != given.tm_min || time.tm_sec != given.tm_sec)
        fail(Exit::data, "the date of strftime_now is no date");
    std::string text;
    for (size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] != '%') {
            text += pattern[i];
            continue;
        }
        const std::string conversion = pattern.substr(i, pattern.compare(i + 1, 1, "-") == 0 ? 3 : 2);
        const char c = conversion.back();
        if (conversion.size() < 2 || kKnown.find(c) == std::string_view::npos)
            fail(Exit::data, "strftime_now: {} is not supported", conversion.size() < 2 ? "% at the end" : conversion);
        char written[64];
        text.append(written, std::strftime(written, sizeof(written), conversion.c_str(), &time));
        i += conversion.size() - 1;
    }
    return text;
}

}  // namespace colonnade::jinja
