#pragma once
// A dictionary of a few words in WordNet's format, and a fixture that runs the programs which make data sets of it.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "engine/io/json.h"
#include "scripts/wordnet_questions.h"
#include "tests/support/paths.h"

namespace colonnade {

using Lines = std::vector<std::string>;

inline const std::map<std::string, Lines> tiny_wordnet{
    {"data.noun",
     {"  1 This software and database is being provided to you, the LICENSEE, by",
      "00000001 05 n 01 canine 0 000 | a carnivore with   sharp teeth  ",
      R"(00000002 05 n 02 dog 0 domestic_dog 0 002 @ 00000001 n 0000 @ 00000005 n 0000 | a tame canid; "the dog barked all night")",
      "00000003 15 n 01 Paris 0 001 @i 00000004 n 0000 | the capital and largest city of France",
      "00000004 15 n 01 national_capital 0 000 | the seat of a government",
      "00000005 05 n 01 pet 0 000 | an animal kept for company"}},
    {"index.noun",
     {"  1 This software and database is being provided to you, the LICENSEE, by", "1850s n 1 0 1 0 00000001",
      "canine n 1 1 ~ 1 1 00000001", "dog n 2 1 @ 2 1 00000002 00000001", "domestic_dog n 1 1 @ 1 0 00000002",
      "national_capital n 1 0 1 0 00000004", "paris n 1 1 @i 1 1 00000003", "pet n 1 0 1 1 00000005"}},
    {"data.verb",
     {R"(00000002 38 v 02 chase 0 dog 0 000 01 + 08 00 | go after; "the policeman chased the mugger"; "he was dogged by his creditors")"}},
    {"index.verb", {"chase v 1 0 1 1 00000002", "dog v 1 0 1 1 00000002"}},
    {"data.adj",
     {R"(00000001 00 s 03 abounding 0 galore(ip) 0 a-plenty 0 000 | existing in abundance: "there was whiskey galore that night"- A. Writer)"}},
    {"index.adj", {"galore a 1 0 1 0 00000001"}},
    {"data.adv", {"00000001 02 r 01 barely 0 000 | only just; synonymous with `hardly' in some uses"}},
    {"index.adv", {"barely r 1 0 1 1 00000001"}}};

struct Outcome {
    int exit = -1;
    std::string output, errors;
    Lines train, validation, text;
};

inline std::string content(const std::string& path) {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
}

inline Lines lines(const std::string& path) {
    Lines out;
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
}

/// Writes a dictionary to the test's folder and runs a program on it.
class WordnetTest : public testing::Test {
  protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        folder_ = testing::TempDir() + test->test_suite_name() + "_" + test->name();
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_ + "/wordnet");
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    void write(const std::map<std::string, Lines>& files) const {
        for (const auto& [name, rows] : files) {
            std::ofstream out(folder_ + "/wordnet/" + name);
            for (const std::string& row : rows) out << row << '\n';
        }
    }
    Outcome run(const std::string& program, const std::string& options, const std::string& wordnet = "") const {
        for (const char* name : {"/train.jsonl", "/validation.jsonl", "/text.txt"})
            std::filesystem::remove(folder_ + name);
        const std::string command =
            fmt::format("{0} --wordnet {2} --validation {1}/validation.jsonl {3} >{1}/out 2>{1}/err",
                        program_path(program), folder_, wordnet.empty() ? folder_ + "/wordnet" : wordnet, options);
        const int status = std::system(command.c_str());
        return {WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                content(folder_ + "/out"),
                content(folder_ + "/err"),
                lines(folder_ + "/train.jsonl"),
                lines(folder_ + "/validation.jsonl"),
                lines(folder_ + "/text.txt")};
    }
    std::string train() const { return "--train " + folder_ + "/train.jsonl "; }

    std::string folder_;
};

}  // namespace colonnade
