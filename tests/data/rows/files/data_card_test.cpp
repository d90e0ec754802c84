// Splits by README.md of a data set. The first card is shaped as datasets' push_to_hub() writes one.

#include "data/rows/files/data_card.h"

#include "data/rows/files/data_files.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

const std::string pushed =
    "---\nlicense: mit\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  splits:\n  - name: train\n"
    "    num_bytes: 10\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/part-*\n"
    "  - split: test\n    path:\n    - held/a.jsonl\n    - \"held/b.jsonl\"\n---\n# A data set\n\n---\nconfigs: text\n";

std::string files(const std::string& yaml) {
    std::string text;
    for (const CardFiles& f : read_data_card(yaml, "README.md"))
        text += fmt::format("{}{}:{}", text.empty() ? "" : " ", f.split, f.pattern);
    return text;
}
std::string of_configs(const std::string& yaml) {
    return files("---\nconfigs:\n" + yaml + "\n---\n");
}

TEST(DataCard, NamesTheFilesOfTheDefaultConfig) {
    EXPECT_EQ(files(pushed), "train:data/part-* test:held/a.jsonl test:held/b.jsonl");
    EXPECT_EQ(of_configs("- config_name: a\n  data_files: [x.jsonl, ./y.jsonl]"), "train:x.jsonl train:y.jsonl");
    EXPECT_EQ(of_configs("- config_name: a\n  data_files: {test: t/*, val: [v]}"), "test:t/* val:v");
    EXPECT_EQ(of_configs("- config_name: a\n  data_files: x/**"), "train:x/**");
    EXPECT_EQ(of_configs("- config_name: a\n  data_dir: in\n  data_files: x"), "train:in/x");
    EXPECT_EQ(of_configs("- config_name: a\n  data_dir: in/"), ":in/**");
    EXPECT_EQ(of_configs("- config_name: a\n  data_files: x\n- config_name: b\n  data_files: y"), "") << "no default";
    EXPECT_EQ(of_configs("- config_name: a\n  data_files: x\n- config_name: b\n  data_files: y\n  default: true"),
              "train:y");
    EXPECT_EQ(of_configs("- config_name: a\n  data_files: x\n- config_name: default\n  data_files: y"), "train:y");
    for (const char* other :
         {"", "# Text", "---\nlicense: mit\n---\n", "---\nconfigs: text", "text\n---\nconfigs: []\n---\n"})
        EXPECT_EQ(files(other), "") << other;
}

TEST(DataCard, RefusesWhatItCannotRead) {
    const auto refuses = [](const std::string& yaml, const std::string& message) {
        expect_error(Exit::data, "README.md: configs cannot be read: " + message, [&] { of_configs(yaml); });
    };
    refuses("- a\n- [", "line 4: ");
    refuses("- text", "expected a map for each of configs");
    refuses("- data_files: [{split: train}]", "expected a path for each of data_files");
    refuses("- {a: " + std::string(2000, '['), "line ");
    expect_error(Exit::data, "README.md: configs of more than ", [&] { of_configs("- " + std::string(1 << 20, 'x')); });
}

TEST(DataCard, PatternsMeanFiles) {
    const std::tuple<const char*, const char*, bool> cases[] = {{"data/train-*", "data/train-0.jsonl", true},
                                                                {"data/train-*", "data/x/train-0.jsonl", false},
                                                                {"*.jsonl", "a/b.jsonl", false},
                                                                {"**/*.jsonl", "a/b/c.jsonl", true},
                                                                {"**/*.jsonl", "c.jsonl", true},
                                                                {"data", "data/x.jsonl", true},
                                                                {"data", "data2/x.jsonl", false},
                                                                {"**", "a/b.jsonl", true}};
    for (const auto& [pattern, path, means] : cases)
        EXPECT_EQ(card_means(pattern, path), means) << pattern << " " << path;
}

class CardFolder : public FileTest {};

TEST_F(CardFolder, DecidesWhichFilesAreOfASplit) {
    for (const char* name :
         {"data/part-0.jsonl", "data/part-1.jsonl", "held/a.jsonl", "held/b.jsonl", "old/train.jsonl"}) {
        std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
        spill(path(name), "{\"text\": \"a\"}\n");
    }
    const auto found = [&](const std::string& split) {
        std::string text;
        for (const std::string& file : find_data_files(folder_, *parse_split(split)).paths)
            text += file.substr(folder_.size() + 1) + ' ';
        return text;
    };
    EXPECT_EQ(found("train"), "data/part-0.jsonl data/part-1.jsonl held/a.jsonl held/b.jsonl old/train.jsonl ");
    spill(path("README.md"), pushed);
    EXPECT_EQ(found("train"), "data/part-0.jsonl data/part-1.jsonl ");
    EXPECT_EQ(found("test"), "held/a.jsonl held/b.jsonl ");
    EXPECT_EQ(splits_of_folder(folder_), (std::set<std::string>{"test", "train"}));
    Split train = *parse_split("train");
    train.if_several = true;
    EXPECT_EQ(find_data_files(folder_, train).paths.size(), 2u);
    expect_error(Exit::data, "holds files of several splits: test (2), train (2)",
                 [&] { find_data_files(folder_, {}); });

    // The same for the list of a repository.
    const std::vector<std::string> listed = {"README.md", "data/part-0.jsonl", "held/a.jsonl", "old/train.jsonl"};
    const auto card = read_data_card(pushed, "README.md");
    EXPECT_EQ(choose_data_files(listed, "", *parse_split("test"), "o/n", card),
              std::vector<std::string>{"held/a.jsonl"});
    EXPECT_EQ(choose_data_files(listed, "old", {}, "o/n"), std::vector<std::string>{"old/train.jsonl"});
    expect_error(Exit::data, "o/n: no data file is one of those that README.md names under configs",
                 [&] { choose_data_files({"other.jsonl"}, "", {}, "o/n", card); });
}

}  // namespace
}  // namespace colonnade
