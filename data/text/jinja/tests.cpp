// Tests: value is name(argument).

#include <map>

#include "data/text/jinja/builtins.h"

namespace colonnade::jinja {

namespace {

using Test = bool (*)(const Value&, const Arguments&, Runtime&);

const Value& operand(const Arguments& arguments) {
    if (arguments.positional.size() != 1 || !arguments.keywords.empty())
        fail(Exit::data, "this test needs one argument");
    return arguments.positional[0];
}

int64_t whole(const Value& value) {
    if (!value.is_integral()) fail(Exit::data, "this test needs an integer, found {}", type_name(value));
    return value.as_integer();
}

bool is_equal(const Value& v, const Arguments& a, Runtime& r) {
    return equal(v, operand(a), r.budget);
}
bool is_unequal(const Value& v, const Arguments& a, Runtime& r) {
    return !equal(v, operand(a), r.budget);
}
bool is_less(const Value& v, const Arguments& a, Runtime& r) {
    return compare(v, operand(a), r.budget) < 0;
}
bool is_greater(const Value& v, const Arguments& a, Runtime& r) {
    return compare(v, operand(a), r.budget) > 0;
}

const std::map<std::string, Test>& tests() {
    static const std::map<std::string, Test> known = {
        {"==", is_equal},
        {"!=", is_unequal},
        {"<", is_less},
        {">", is_greater},
        {"boolean", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::boolean); }},
        {"callable", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::function); }},
        {"defined", [](const Value& v, const Arguments&, Runtime&) { return !v.is(Kind::undefined); }},
        {"divisibleby",
         [](const Value& v, const Arguments& a, Runtime& r) { return whole(binary("%", v, operand(a), r)) == 0; }},
        {"eq", is_equal},
        {"equalto", is_equal},
        {"even", [](const Value& v, const Arguments&, Runtime&) { return whole(v) % 2 == 0; }},
        {"false",
         [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::boolean) && v.as_integer() == 0; }},
        {"float", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::real); }},
        {"greaterthan", is_greater},
        {"gt", is_greater},
        {"in", [](const Value& v, const Arguments& a, Runtime& r) { return contains(operand(a), v, r.budget); }},
        {"integer", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::integer); }},
        {"iterable",
         [](const Value& v, const Arguments&, Runtime&) {
             return v.is(Kind::undefined) || v.is(Kind::text) || v.is(Kind::dict) || v.is(Kind::loop) ||
                    v.is_sequence();
         }},
        {"lessthan", is_less},
        {"lt", is_less},
        {"mapping", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::dict); }},
        {"ne", is_unequal},
        {"none", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::none); }},
        {"number", [](const Value& v, const Arguments&, Runtime&) { return v.is_number(); }},
        {"odd", [](const Value& v, const Arguments&, Runtime&) { return whole(v) % 2 != 0; }},
        {"sequence",
         [](const Value& v, const Arguments&, Runtime&) {
             return v.is(Kind::undefined) || v.is(Kind::text) || v.is(Kind::dict) || v.is(Kind::list) ||
                    v.is(Kind::tuple);
         }},
        {"string", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::text); }},
        {"true", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::boolean) && v.as_integer() != 0; }},
        {"undefined", [](const Value& v, const Arguments&, Runtime&) { return v.is(Kind::undefined); }},
    };
    return known;
}

}  // namespace

bool has_test(const std::string& name) {
    return tests().count(name) > 0;
}

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments, Runtime& runtime) {
    const auto found = tests().find(name);
    if (found == tests().end()) fail(Exit::data, "the test '{}' is not supported", name);
    runtime.budget.spend(1);
    return found->second(value, arguments, runtime);
}

}  // namespace colonnade::jinja
