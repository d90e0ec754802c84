#include <set>
#include <sstream>
#include <utility>

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/program.h"

namespace colonnade {
namespace {

class AgentTraces : public FileTest {
  protected:
    std::vector<Json> rows(const std::vector<std::string>& options) const {
        std::vector<std::string> arguments = {"--train", path("train"), "--validation", path("validation")};
        arguments.insert(arguments.end(), options.begin(), options.end());
        const Program::Result result = run("agent_traces", arguments);
        EXPECT_EQ(result.exit, 0) << result.err;
        std::vector<Json> rows;
        for (const char* file : {"train", "validation"}) {
            std::istringstream in(slurp(path(file)));
            for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
        }
        return rows;
    }
};

std::vector<std::string> words(const std::string& text) {
    std::vector<std::string> words;
    std::istringstream in(text);
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

/// The answer that a question about all towns has by what grep said.
std::string expected_answer(const std::string& question, const std::string& found) {
    const bool total = question.starts_with("How");
    const std::string last = words(question).back();  // "pears?"
    const std::string goods = total ? words(question)[2] : last.substr(0, last.size() - 1);
    int sum = 0, largest = 0;
    std::string town;
    std::istringstream in(found);
    for (std::string line; std::getline(in, line);) {
        const std::vector<std::string> parts = words(line);  // /stock/Oslo.txt: pears 12
        if (parts.size() != 3) continue;
        const int pieces = std::stoi(parts[2]);
        sum += pieces;
        if (pieces > largest) largest = pieces, town = parts[0].substr(7, parts[0].find('.') - 7);
    }
    if (total) return sum ? fmt::format("There are {} {} in all towns.", sum, goods) : "";
    return largest ? fmt::format("{} has the most {}: {}.", town, goods, largest) : "";
}

TEST_F(AgentTraces, MessagesAlternateAndToolsAreThoseOfTheList) {
    const std::vector<Json> chats = rows({"--chats", "40", "--questions", "3"});
    ASSERT_EQ(chats.size(), 40u);
    int calls = 0, checked = 0;
    for (const Json& chat : chats) {
        std::set<std::string> tools;
        for (const Json& tool : chat.at("tools")) tools.insert(tool.at("function").at("name"));
        EXPECT_EQ(tools, (std::set<std::string>{"ls", "cat", "grep", "calc"}));
        const Json& messages = chat.at("messages");
        EXPECT_EQ(messages[0].at("role"), "system");
        EXPECT_EQ(messages.back().at("role"), "assistant");
        std::string question, found, open;  // open: the tool that has been called
        int questions = 0;
        for (size_t i = 1; i < messages.size(); ++i) {
            const Json& message = messages[i];
            const std::string role = message.at("role"), text = message.at("content");
            EXPECT_EQ(role == "tool", !open.empty());
            if (role == "tool") {
                EXPECT_EQ(message.at("name"), std::exchange(open, ""));
                EXPECT_FALSE(text.empty());
                if (message["name"] == "grep") found = text;
            } else if (role == "user") {
                question = text;
                ++questions;
            } else {
                EXPECT_NE(message.at("reasoning_content"), "");
                EXPECT_EQ(message.contains("tool_calls"), text.empty());
                if (text.empty()) {
                    const Json& function = message.at("tool_calls").at(0).at("function");
                    open = function.at("name");
                    EXPECT_TRUE(tools.contains(open));
                    EXPECT_TRUE(function.at("arguments").is_object());
                    ++calls;
                } else if (question.ends_with("in all towns?") || question.starts_with("Which town")) {
                    const std::string expected = expected_answer(question, found);
                    if (!expected.empty()) {
                        EXPECT_EQ(text, expected) << question << found;
                    }
                    ++checked;
                }
            }
        }
        EXPECT_EQ(questions, 3);
    }
    EXPECT_GT(calls, 120);
    EXPECT_GT(checked, 30);
}

/// The product of a price and a number that other calls have shown.
TEST_F(AgentTraces, CalculatesWithWhatItHasSeen) {
    int products = 0;
    for (const Json& chat : rows({"--chats", "60"})) {
        std::vector<std::string> seen;
        for (const Json& message : chat.at("messages")) {
            if (message.at("role") == "tool") seen.push_back(message["content"]);
            if (!message.contains("tool_calls") || message["tool_calls"][0]["function"]["name"] != "calc") continue;
            const std::vector<std::string> parts =
                words(message["tool_calls"][0]["function"]["arguments"]["expression"]);
            ASSERT_GE(parts.size(), 3u);
            if (parts[1] != "*") continue;
            EXPECT_TRUE(seen.back().ends_with(" " + parts[2] + "\n")) << seen.back();  // of /prices.txt
            EXPECT_NE(seen[seen.size() - 2].find(" " + parts[0] + "\n"), std::string::npos);
            const Json& result = (&message)[1];
            EXPECT_EQ(result.at("content"), std::to_string(std::stoi(parts[0]) * std::stoi(parts[2])));
            ++products;
        }
    }
    EXPECT_GT(products, 20);
}

TEST_F(AgentTraces, TheSeedDecides) {
    const std::vector<Json> one = rows({"--chats", "40"});
    EXPECT_EQ(rows({"--chats", "40"}), one);
    EXPECT_NE(rows({"--chats", "40", "--seed", "2"}), one);
    std::istringstream in(slurp(path("validation")));
    int held_out = 0;
    for (std::string line; std::getline(in, line);) ++held_out;
    EXPECT_EQ(held_out, 2);
    const Program::Result usage = run("agent_traces", {"--train", path("x")});
    EXPECT_EQ(usage.exit, 2);
    EXPECT_NE(usage.err.find("--validation is required"), std::string::npos) << usage.err;
    EXPECT_EQ(run("agent_traces", {"--train", path("x"), "--validation", path("y"), "--chats", "0"}).exit, 2);
}

}  // namespace
}  // namespace colonnade
