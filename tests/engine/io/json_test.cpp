#include "engine/io/json.h"

#include <cmath>
#include <limits>

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

std::string nested(int levels) {
    return std::string(static_cast<size_t>(levels), '[') + std::string(static_cast<size_t>(levels), ']');
}

TEST(Json, KeepsOrderAndTypes) {
    const Json j = parse_json(R"({"z": 1, "a": -2, "m": 1.5, "big": 18446744073709551615, "e": 1e3,
                                  "t": [true, null, "\u00e9\n", {}, []]})",
                              "here");
    EXPECT_EQ(j.dump(), R"({"z":1,"a":-2,"m":1.5,"big":18446744073709551615,"e":1000.0,"t":[true,null,"é\n",{},[]]})");
    EXPECT_TRUE(j["z"].is_number_unsigned());
    EXPECT_TRUE(j["a"].is_number_integer());
    EXPECT_TRUE(j["e"].is_number_float());
    EXPECT_EQ(parse_json(" 7 ", "here"), 7);
    EXPECT_EQ(parse_json(R"([{"a": {"a": 1}}, {"a": 2}])", "here").size(), 2u) << "the same key in different objects";
}

TEST(Json, RefusesWithPlace) {
    const struct {
        std::string text, part;
    } rows[] = {
        {"", "f: column 1: invalid JSON: syntax error while parsing value - unexpected end of input"},
        {"{\"a\": 1", "f: column 7: invalid JSON: syntax error while parsing object - unexpected end of input"},
        {"{\"a\": 1,\n \"b\": tru}",
         "f: line 2, column 10: invalid JSON: syntax error while parsing value - invalid literal"},
        {"{\n}\n x", "f: line 3, column 2: invalid JSON"},
        {"[1,]", "f: column 4: invalid JSON: syntax error while parsing value - unexpected ']'"},
        {"[1] [2]", "f: column 5: invalid JSON"},
        {"{'a': 1}", "f: column 2: invalid JSON: syntax error while parsing object key"},
        {"{\"a\": 1, \"b\": 2, \"a\": 3}", "f: column 20: invalid JSON: duplicate key 'a'"},
        {"{\"x\": {\"a\": 1,\n\"a\": 3}}", "f: line 2, column 3: invalid JSON: duplicate key 'a'"},
        {"{\"k\": 1, \"\\u006b\": 2}", "duplicate key 'k'"},
        {"[1e999]", "number overflow"},
        {"[NaN]", "invalid literal"},
        {"[01]", "f: column 3: invalid JSON"},
        {"[+1]", "f: column 2: invalid JSON"},
        {"\"a\tb\"", "control character"},
        {"\"\xff\"",
         "f: column 2: invalid JSON: syntax error while parsing value - invalid string: ill-formed UTF-8 byte"},
        {"\"\xc0\xaf\"", "ill-formed UTF-8 byte"},      // overlong '/'
        {"\"\xed\xa0\x80\"", "ill-formed UTF-8 byte"},  // a surrogate
        {"\"\\ud800\"", "surrogate"},
        {"// no\n1", "f: line 1, column 1: invalid JSON"},
        {std::string("{\"a\": 1}\0{", 10), "f: column 9: invalid JSON: a NUL byte"},
        {nested(65), "f: column 65: invalid JSON: nested deeper than 64 levels"},
        {nested(100'000), "nested deeper than 64 levels"},
        {std::string(100'000, '['), "nested deeper than 64 levels"},
    };
    for (const auto& row : rows) expect_error(Exit::data, row.part, [&] { parse_json(row.text, "f"); });
}

TEST(Json, LimitsAreExact) {
    EXPECT_EQ(parse_json(nested(64), "f").size(), 1u);
    EXPECT_EQ(parse_json("[[1]]", "f", {.bytes = 5, .depth = 2}).size(), 1u);
    expect_error(Exit::data, "f: 6 bytes of JSON, expected at most 5", [] { parse_json("[[11]]", "f", {.bytes = 5}); });
    expect_error(Exit::data, "deeper than 1 levels", [] { parse_json("[[1]]", "f", {.depth = 1}); });
}

// Python's json writes NaN and Infinity. They are numbers for who asks for them, and nothing else changes.
TEST(Json, NonFiniteNumbersAreReadOnRequest) {
    const char* text = R"({"a": NaN, "b": [-Infinity,Infinity , 0.0, "NaN: \" , NaN"], "c": {"d":NaN}, "n": -0.5})";
    const Json j = parse_json(text, "f", {.non_finite = NonFinite::read});
    EXPECT_TRUE(std::isnan(j["a"].get<double>()) && std::isnan(j["c"]["d"].get<double>()));
    EXPECT_EQ(j["b"][0].get<double>(), -std::numeric_limits<double>::infinity());
    EXPECT_EQ(j["b"][1].get<double>(), std::numeric_limits<double>::infinity());
    EXPECT_EQ(j["b"][2].get<double>(), 0.0);
    EXPECT_EQ(j["b"][3], R"(NaN: " , NaN)");
    EXPECT_EQ(j["n"], -0.5);
    expect_error(Exit::data, "f: column 7: invalid JSON", [&] { parse_json(text, "f"); });
    for (const char* bad :
         {"[NaN5]", "[5NaN]", "[xNaN]", "[NaN NaN]", "[\"a\"NaN]", "{NaN: 1}", "[+NaN]", "[Infinity.0]"})
        expect_error(Exit::data, "invalid JSON", [&] { parse_json(bad, "f", {.non_finite = NonFinite::read}); });
    expect_error(Exit::data, "f: column 17: invalid JSON",
                 [&] { parse_json(R"({"a": NaN, "b": x})", "f", {.non_finite = NonFinite::read}); });
}

// A token of several megabytes does not produce a message of that size.
TEST(Json, MessageStaysShort) {
    const std::string message =
        expect_error(Exit::data, "missing closing quote", [] { parse_json("\"" + std::string(1'000'000, 'x'), "f"); });
    EXPECT_LT(message.size(), 300u);
}

TEST(Json, ManyKeys) {
    std::string text = "{";
    for (int i = 0; i < 200'000; ++i) text += fmt::format("{}\"k{}\": {}", i ? "," : "", i, i);
    const Json j = parse_json(text + "}", "f");
    ASSERT_EQ(j.size(), 200'000u);
    EXPECT_EQ((--j.end()).key(), "k199999");
}

using JsonFile = FileTest;
TEST_F(JsonFile, NamesTheFile) {
    spill(path("a.json"), "{\"a\":\n  b}");
    expect_error(Exit::data, path("a.json") + ": line 2, column 3:", [&] { read_json_file(path("a.json")); });
    expect_error(Exit::data, path("b.json") + ": cannot open: No such file", [&] { read_json_file(path("b.json")); });
    expect_error(Exit::data, path("a.json") + ": 10 bytes or more, expected at most 5",
                 [&] { read_json_file(path("a.json"), {.bytes = 5}); });
}

}  // namespace
}  // namespace colonnade
