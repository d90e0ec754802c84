#include "data/rows/files/data_files.h"

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

class DataFileLists : public FileTest {
  protected:
    void make(const std::vector<std::string>& names) const {
        for (const std::string& name : names) {
            std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
            spill(path(name), "{}");
        }
    }
    /// "a.jsonl b.json | left.txt"
    std::string found(const std::string& at, const std::string& split = "") const {
        const DataFiles files = find_data_files(at, split.empty() ? Split() : parse_split(split).value());
        std::string text = fmt::format("{} |", fmt::join(files.paths, " "));
        for (const std::string& file : files.left_out) text += " " + file;
        for (size_t i; (i = text.find(folder_ + "/")) != text.npos;) text.erase(i, folder_.size() + 1);
        return text;
    }
};

TEST_F(DataFileLists, OfAFolder) {
    make({"d/b.jsonl", "d/a.json.gz", "d/sub/c.parquet", "d/e.ndjson.zst", "d/f.jsonl.zst", "d/README.md",
          "d/x.parquet.gz", "d/.cache/y.jsonl", "d/.hidden.jsonl", "d/dataset_infos.json", "d/table.csv"});
    EXPECT_EQ(
        found(path("d")),
        "d/a.json.gz d/b.jsonl d/e.ndjson.zst d/f.jsonl.zst d/sub/c.parquet | d/.cache d/.hidden.jsonl d/README.md "
        "d/dataset_infos.json d/table.csv d/x.parquet.gz");
    make({"none/notes.txt"});
    expect_error(Exit::data, "none: the folder has no data file; expected files that end in .jsonl, .ndjson, .json",
                 [&] { found(path("none")); });
    // A cache of models keeps the files elsewhere, and links to them.
    std::filesystem::create_directories(path("links"));
    std::filesystem::create_symlink("../d/b.jsonl", path("links/b.jsonl"));
    std::filesystem::create_directory_symlink("..", path("links/round"));
    EXPECT_EQ(found(path("links")), "links/b.jsonl | links/round");
}

TEST_F(DataFileLists, OfAGlob) {
    make({"g/a1.jsonl", "g/a2.txt", "g/b.jsonl", "g/a3/c.jsonl", "g/odd[1].jsonl"});
    EXPECT_EQ(found(path("g/a*")), "g/a1.jsonl g/a2.txt | g/a3");
    EXPECT_EQ(found(path("g/?.jsonl")), "g/b.jsonl |");
    EXPECT_EQ(found(path("g/odd[1].jsonl")), "g/odd[1].jsonl |") << "a file of that name comes first";
    expect_error(Exit::data, "g/z*: no file matches this pattern", [&] { found(path("g/z*")); });
    expect_error(Exit::data, "no file matches this pattern, only folders do", [&] { found(path("g/a3*")); });
}

TEST_F(DataFileLists, OfASplit) {
    make({"h/data/train-00000-of-00002.parquet", "h/data/train-00001-of-00002.parquet",
          "h/data/test-00000-of-00001.parquet", "h/README.md"});
    expect_error(Exit::data,
                 "h: holds files of several splits: test (1), train (2); choose one, for example split: train",
                 [&] { found(path("h")); });
    EXPECT_EQ(found(path("h"), "train[:10]"),
              "h/data/train-00000-of-00002.parquet h/data/train-00001-of-00002.parquet | h/README.md "
              "h/data/test-00000-of-00001.parquet");
    expect_error(Exit::data, "h: no file belongs to split validation; found test (1), train (2)",
                 [&] { found(path("h"), "valid"); });
    // Names of shards are splits of their own, whatever words are in them.
    make({"u/train_sft-00000-of-00001.parquet", "u/train_prefs-00000-of-00001.parquet"});
    EXPECT_EQ(found(path("u"), "train_sft"),
              "u/train_sft-00000-of-00001.parquet | u/train_prefs-00000-of-00001.parquet");
    // Words in the name, then in the folder; "contest" is no word.
    make({"w/my-dev.v2.jsonl", "w/test/a.jsonl", "w/contest.jsonl", "w/eval/training 3.jsonl"});
    EXPECT_EQ(found(path("w"), "validation"),
              "w/my-dev.v2.jsonl | w/contest.jsonl w/eval/training 3.jsonl w/test/a.jsonl");
    EXPECT_EQ(found(path("w"), "train"), "w/contest.jsonl w/eval/training 3.jsonl | w/my-dev.v2.jsonl w/test/a.jsonl");
    EXPECT_EQ(found(path("w/*.jsonl"), "dev"), "w/my-dev.v2.jsonl | w/contest.jsonl");
    // A single file is train, whatever its name says; or what it says.
    EXPECT_EQ(found(path("w/test/a.jsonl"), "train"), "w/test/a.jsonl |");
    EXPECT_EQ(found(path("w/my-dev.v2.jsonl"), "dev"), "w/my-dev.v2.jsonl |");
    EXPECT_EQ(found(path("w/my-dev.v2.jsonl"), "train"), "w/my-dev.v2.jsonl |");
    expect_error(Exit::data, "no file belongs to split test", [&] { found(path("w/my-dev.v2.jsonl"), "test"); });
}

TEST(Splits, SliceAsHuggingFaceDatasetsDo) {
    const Json cases = read_json_file(golden_file("split_golden.json"));
    EXPECT_GT(cases.size(), 100u);
    for (const Json& golden : cases) {
        const auto [text, rows, from, to] = golden.get<std::tuple<std::string, int64_t, int64_t, int64_t>>();
        const std::optional<Split> split = parse_split(text);
        ASSERT_TRUE(split) << text;
        EXPECT_EQ(split->from ? split->from->of(rows) : 0, from) << text << " of " << rows;
        EXPECT_EQ(split->to ? split->to->of(rows) : rows, to) << text << " of " << rows;
    }
}

TEST(Splits, RefuseOtherForms) {
    for (const char* text : {"train[", "train[]", "train[5]", "train[:5", "train[:5]]", "[:5]", "train[:x]",
                             "train[:101%]", "train[:1.5%]", "train+test", "train[:5](pct1_dropremainder)",
                             "train[1:2:3]", "a/b", " train", "train[:99999999999999999999]"})
        EXPECT_FALSE(parse_split(text)) << text;
    EXPECT_EQ(parse_split("valid")->name, "validation");
    EXPECT_EQ(parse_split("train_sft")->name, "train_sft");
}

TEST(DataFiles, OfARepositoryAreChosenByItsList) {
    using Files = std::vector<std::string>;
    const auto choose = [](const Files& listed, const std::string& inside, const std::string& split = "") {
        return choose_data_files(listed, inside, split.empty() ? Split() : parse_split(split).value(), "o/n");
    };
    const Files shards = {"README.md",
                          "data/test-00000-of-00001.parquet",
                          "data/train-00000-of-00002.parquet",
                          "data/train-00001-of-00002.parquet",
                          "dataset_infos.json",
                          ".hidden/train.jsonl"};
    const Files train = {shards[2], shards[3]};
    EXPECT_EQ(choose(shards, "", "train[:10]"), train);
    EXPECT_EQ(choose(shards, "data", "train"), train);
    EXPECT_EQ(choose(shards, "data/train-*.parquet"), train);
    EXPECT_EQ(choose(shards, "data/test-00000-of-00001.parquet"), Files{shards[1]});
    expect_error(Exit::data, "o/n: holds files of several splits: test (1), train (2)", [&] { choose(shards, ""); });
    expect_error(Exit::data, "no file belongs to split dev_x", [&] { choose(shards, "", "dev_x"); });
    expect_error(Exit::data, "o/n: has no data file in other; expected files that end in .jsonl",
                 [&] { choose(shards, "other"); });
    expect_error(Exit::data, "o/n: no file matches *.csv", [&] { choose(shards, "*.csv"); });

    const Files parts = {"main/train-0.jsonl", "socratic/train-0.jsonl", "main/test-0.jsonl"};
    expect_error(Exit::data, "several folders: main, socratic; give one, such as o/n/main",
                 [&] { choose(parts, "", "train"); });
    EXPECT_EQ(choose(parts, "main", "train"), Files{"main/train-0.jsonl"});
    EXPECT_EQ(choose(parts, "*/train-*").size(), 2u);
    EXPECT_EQ(choose({"train/a.jsonl", "test/a.jsonl"}, "", "test"), Files{"test/a.jsonl"});
}

}  // namespace
}  // namespace colonnade
