#pragma once
// Attributes, methods, filters and tests of values.

#include <string>

#include "data/text/jinja/value.h"

namespace colonnade::jinja {

/// State of a render that built-in functions use.
struct Runtime {
    Budget budget;
    uint32_t origin = 0;  ///< of the template text written now
};

Value attribute(const Value& value, const std::string& name, Runtime& runtime);  ///< value.name
Value item(const Value& value, const Value& key, Runtime& runtime);              ///< value[key]
Value slice(const Value& value, const Value* begin, const Value* end, const Value* step, Runtime& runtime);
/// Whether value.name is a method; refuses methods that change the value and methods that are not supported, by name.
bool is_method(const Value& value, const std::string& name);
Value call_method(const Value& value, const std::string& name, const Arguments& arguments, Runtime& runtime);

bool has_filter(const std::string& name);
bool has_test(const std::string& name);
Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments, Runtime& runtime);
bool apply_test(const std::string& name, const Value& value, const Arguments& arguments, Runtime& runtime);

Value binary(const std::string& symbol, const Value& a, const Value& b, Runtime& runtime);      ///< a + b and its kin
Value mapped_case(const Value& value, std::string (*map)(std::string_view), Runtime& runtime);  ///< upper and lower
Value capitalized(const Value& value, Runtime& runtime);
Value replaced(const Value& value, const Arguments& arguments, Runtime& runtime);  ///< replace(old, new, count)
std::vector<Text> lines_of(const Text& text, Budget& budget);                      ///< str.splitlines()

}  // namespace colonnade::jinja
