#include "train/report/html.h"

#include <gtest/gtest.h>

#include "tests/support/markup.h"

namespace colonnade {
namespace {

TEST(Html, EscapesTexts) {
    EXPECT_EQ(escaped("a < b & c > \"d\" 'e'\n\tf"), "a &lt; b &amp; c &gt; &quot;d&quot; &#39;e&#39;\n\tf");
    EXPECT_EQ(escaped("\x1b[31m"), "\xEF\xBF\xBD[31m");
    EXPECT_EQ(escaped("caf\xC3\xA9 \xFF \xC3"), "caf\xC3\xA9 \xEF\xBF\xBD \xEF\xBF\xBD");
}

TEST(Html, NoTextEndsAScript) {
    const Json json = {{"</script><script>alert(1)", "</script>"}};
    const std::string text = script_json(json);
    EXPECT_EQ(occurrences(text, "</script>"), 1);
    const size_t begin = text.find('>') + 1;
    EXPECT_EQ(parse_json(text.substr(begin, text.rfind("</script>") - begin), "script"), json);
}

TEST(Html, TablesEscapeTheirCells) {
    const std::string table = html_table({"<name>", "value"}, {{"a&b", "1"}, {"<script>", "2"}}, 1);
    EXPECT_EQ(markup_trouble(table), "");
    EXPECT_EQ(occurrences(table, "<script>"), 0);
    EXPECT_EQ(occurrences(table, "class=\"number\""), 3);
}

TEST(Html, NumbersAreShort) {
    EXPECT_EQ(number_text(2e-5), "2e-05");
    EXPECT_EQ(number_text(1234567), "1234567");
    EXPECT_EQ(number_text(2.3125678), "2.31257");
    EXPECT_EQ(number_text(-0.5), "-0.5");
}

TEST(Markup, FindsWhatIsWrong) {
    EXPECT_EQ(markup_trouble("<!DOCTYPE html>\n<p>a<br/>&amp; <i class=\"b c\">d</i></p><script>if (a<b) {}</script>"),
              "");
    for (const char* bad : {"<p>", "<p></i>", "<p a=b></p>", "<p>a & b</p>", "<p>a > b</p>", "<p a=\"<\"></p>",
                            "<p>&nbsp;</p>", "</p>", "<>"})
        EXPECT_NE(markup_trouble(bad), "") << bad;
}

}  // namespace
}  // namespace colonnade
