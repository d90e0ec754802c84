#include "engine/io/json_keys.h"

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

TEST(JsonKeys, ReadsTypedValuesAndDefaults) {
    const Json json = {{"i", -3}, {"x", 1.5}, {"yes", true}, {"name", "stoa"}, {"none", nullptr}};
    const JsonKeys keys(json, "f.json");
    EXPECT_EQ(keys.where(), "f.json");
    EXPECT_EQ(keys.integer("i"), -3);
    EXPECT_EQ(keys.number("x"), 1.5);
    EXPECT_EQ(keys.number("i"), -3.0);
    EXPECT_TRUE(keys.boolean("yes"));
    EXPECT_EQ(keys.text("name"), "stoa");
    EXPECT_EQ(keys.find("i")->get<int>(), -3);
    for (const std::string absent : {"none", "missing"}) {
        EXPECT_EQ(keys.find(absent), nullptr);
        EXPECT_EQ(keys.integer(absent, 7), 7);
        EXPECT_EQ(keys.number(absent, 0.5), 0.5);
        EXPECT_TRUE(keys.boolean(absent, true));
        EXPECT_EQ(keys.text(absent, "x"), "x");
        EXPECT_EQ(keys.is_null(absent), absent == "none");
        expect_error(Exit::data, "f.json: key '" + absent + "' is missing; expected an integer",
                     [&] { keys.integer(absent); });
    }
    EXPECT_EQ(keys.integer("missing", -1, {.low = 0}), -1) << "a default need not be in range";
}

TEST(JsonKeys, RefusesOtherTypesAndRanges) {
    const Json json = {{"i", 3}, {"huge", UINT64_MAX}, {"x", 1.5},
                       {"b", 1}, {"s", {"a"}},         {"long", std::string(200, 'x')}};
    const JsonKeys keys(json, "f.json: part");
    const auto refuses = [](const std::string& message, const auto& read) {
        expect_error(Exit::data, "f.json: part: key " + message, read);
    };
    refuses("'x' should be an integer, found 1.5", [&] { keys.integer("x"); });
    refuses("'x' should be an integer, found 1.5", [&] { keys.integer("x", 4); });
    refuses("'i' should be an integer >= 4, found 3", [&] { keys.integer("i", {}, {.low = 4}); });
    refuses("'i' should be an integer >= 0 and < 3, found 3", [&] { keys.integer("i", {}, {.low = 0, .below = 3}); });
    refuses("'huge' should be an integer below 2^63, found 18446744073709551615", [&] { keys.integer("huge"); });
    refuses("'huge' should be an integer >= -1, found 18446744073709551615",
            [&] { keys.integer("huge", {}, {.low = -1}); });
    refuses("'s' should be a number, found [\"a\"]", [&] { keys.number("s"); });
    refuses("'x' should be a number < 1.5, found 1.5", [&] { keys.number("x", 0, {.below = 1.5}); });
    refuses("'b' should be true or false, found 1", [&] { keys.boolean("b", false); });
    refuses("'b' should be a string, found 1", [&] { keys.text("b"); });
    refuses("'s' should be a name, found [\"a\"]", [&] { keys.refuse("s", "a name"); });
    refuses("'long' should be an integer, found \"" + std::string(99, 'x'), [&] { keys.integer("long"); });
    for (const Json& other : {Json(3), Json::array({1}), Json("text"), Json()})
        expect_error(Exit::data, "f.json: expected an object, found " + other.dump(),
                     [&] { JsonKeys(other, "f.json"); });
}

}  // namespace
}  // namespace colonnade
