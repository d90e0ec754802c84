#include <set>
#include <sstream>

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/program.h"

namespace colonnade {
namespace {

class Arithmetic : public FileTest {
  protected:
    static std::string run_well(const std::vector<std::string>& arguments) {
        const Program::Result result = run("arithmetic", arguments);
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out;
    }
    static std::vector<std::string> lines(const std::string& text) {
        std::vector<std::string> lines;
        std::istringstream in(text);
        for (std::string line; std::getline(in, line);) lines.push_back(line);
        return lines;
    }
    std::vector<std::string> prompts(const std::vector<std::string>& options) const {
        std::vector<std::string> arguments = {"prompts", "--output", path("prompts.txt")};
        arguments.insert(arguments.end(), options.begin(), options.end());
        run_well(arguments);
        return lines(slurp(path("prompts.txt")));
    }
};

/// The sum that a question asks for, or -1 if it is none.
int sum_of(const std::string& question) {
    int a = 0, b = 0;
    const bool read = std::sscanf(question.c_str(), "%d + %d =", &a, &b) == 2;
    return read && question == fmt::format("{} + {} =", a, b) ? a + b : -1;
}

TEST_F(Arithmetic, PromptsAreEachQuestionOnceInTheOrderOfTheSeed) {
    const std::vector<std::string> train = prompts({}), held_out = prompts({"--held-out"});
    EXPECT_EQ(train.size() + held_out.size(), 90u * 90);
    EXPECT_NEAR(static_cast<double>(held_out.size()), 810, 4 * 27);  // four standard deviations
    std::set<std::string> all(train.begin(), train.end());
    all.insert(held_out.begin(), held_out.end());
    EXPECT_EQ(all.size(), 90u * 90);
    for (const std::string& question : all) EXPECT_TRUE(sum_of(question) >= 20 && sum_of(question) <= 198) << question;

    EXPECT_EQ(prompts({"--count", "5"}), std::vector(train.begin(), train.begin() + 5));
    const std::vector<std::string> other = prompts({"--seed", "2"});
    EXPECT_NE(other, train);
    EXPECT_TRUE(std::ranges::is_permutation(other, train));
}

TEST_F(Arithmetic, ChatsHaveTheirShareOfMistakes) {
    const auto write = [&](const char* mistakes) {
        run_well({"chats", "--train", path("t"), "--validation", path("v"), "--text", path("text"), "--count", "4000",
                  "--mistakes", mistakes});
    };
    const auto count_right = [&](const char* file, const std::set<std::string>& allowed) {
        int right = 0;
        for (const std::string& line : lines(slurp(path(file)))) {
            const Json messages = Json::parse(line).at("messages");
            const std::string question = messages.at(0).at("content"), answer = messages.at(1).at("content");
            EXPECT_TRUE(allowed.contains(question)) << question;
            const int error = std::abs(std::stoi(answer) - sum_of(question));
            EXPECT_TRUE(error == 0 || error == 1 || error == 10) << line;
            right += error == 0;
        }
        return right;
    };
    const std::vector<std::string> train = prompts({}), held_out = prompts({"--held-out"});
    const std::set<std::string> of_train(train.begin(), train.end()), of_held_out(held_out.begin(), held_out.end());
    write("0.5");
    EXPECT_NEAR(count_right("t", of_train), 2000, 4 * 32);
    EXPECT_NEAR(count_right("v", of_held_out), 50, 4 * 5);
    const std::string text = slurp(path("text"));
    EXPECT_NE(text.find("1 2 + 3 4 = \n"), std::string::npos);
    write("0");
    EXPECT_EQ(count_right("t", of_train), 4000);
    EXPECT_EQ(count_right("v", of_held_out), 100);
}

TEST_F(Arithmetic, ScoreChecksAnswers) {
    spill(
        path("samples"),
        R"({"prompt":[{"role":"system","content":"s"},{"role":"user","content":"17 + 48 ="}],"completions":["65","66","065"," 65",""],"finish_reason":["stop","stop","stop","stop","stop"]})"
        "\n"
        R"({"prompt":[{"role":"user","content":"10 + 10 ="}],"completions":["20","20"]})"
        "\n"
        R"({"prompt":[{"role":"user","content":"99 + 99 ="}],"completions":["9"]})"
        "\n");
    const std::string said =
        "reward 0.375: 3 of 8 answers are right; of 3 questions 1 have only right ones, 1 only "
        "wrong ones\n";
    EXPECT_EQ(run_well({"score", path("samples")}), said);
    EXPECT_EQ(run_well({"score", path("samples"), "--output", path("scored")}), said);
    const std::vector<std::string> before = lines(slurp(path("samples"))), after = lines(slurp(path("scored")));
    ASSERT_EQ(after.size(), 3u);
    const Json rewards[] = {{1, 0, 0, 0, 0}, {1, 1}, Json::array({0})};
    for (size_t i = 0; i < 3; ++i) {
        Json row = Json::parse(after[i]);
        EXPECT_EQ(row.at("rewards"), rewards[i]);
        row.erase("rewards");
        EXPECT_EQ(row, Json::parse(before[i]));
    }
}

TEST_F(Arithmetic, ErrorsSayWhatIsWrong) {
    const auto expect = [&](const std::vector<std::string>& arguments, Exit exit, const std::string& part) {
        const Program::Result result = run("arithmetic", arguments);
        EXPECT_EQ(result.exit, static_cast<int>(exit)) << part;
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    };
    expect({}, Exit::config, "command is required");
    expect({"solve"}, Exit::config, "solve not in");
    expect({"prompts", "--output", path("x"), "--count", "9000"}, Exit::config, "--count 9000: there are");
    expect({"chats", "--train", path("x")}, Exit::config, "--validation is required");
    const auto row = [&](const std::string& text, const std::string& part) {
        const std::string good = R"({"prompt":[{"role":"user","content":"10 + 10 ="}],"completions":["20"]})";
        spill(path("samples"), good + "\n" + text + "\n");
        expect({"score", path("samples"), "--output", path("scored")}, Exit::data, path("samples") + ":2: " + part);
        EXPECT_FALSE(std::filesystem::exists(path("scored")));
    };
    row("{", "column 1: invalid JSON");
    row("[]", "expected \"prompt\"");
    row(R"({"prompt":"17 + 48 =","completions":["65"]})", "expected \"prompt\"");
    row(R"({"prompt":[{"role":"user","content":"7 + 48 ="}],"completions":["55"]})", "expected \"prompt\"");
    row(R"({"prompt":[{"role":"user","content":"17 + 99999999999 ="}],"completions":["55"]})", "expected \"prompt\"");
    row(R"({"prompt":[{"role":"user","content":"17 + 48"}],"completions":["65"]})", "expected \"prompt\"");
    row(R"({"prompt":[{"role":"user","content":"17 + 48 ="}]})", "expected \"completions\"");
    row(R"({"prompt":[{"role":"user","content":"17 + 48 ="}],"completions":["65",1]})", "expected \"completions\"");
    spill(path("samples"), "");
    expect({"score", path("samples")}, Exit::data, "no rows");
}

}  // namespace
}  // namespace colonnade
