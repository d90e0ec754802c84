#include "train/log/trackio_log.h"

#include <cmath>
#include <set>

#include "engine/io/json.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

class TrackioLogTest : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        setenv("TRACKIO_DIR", path("trackio").c_str(), 1);
    }
    void TearDown() override {
        unsetenv("TRACKIO_DIR");
        FileTest::TearDown();
    }
    /// The records of the inbox in the order in which Trackio reads them.
    std::vector<Json> records() const {
        std::vector<std::string> files;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(path("trackio/inbox")))
            if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
        std::ranges::sort(files);
        std::vector<Json> all;
        for (const std::string& file : files) {
            std::ifstream lines(file);
            for (std::string line; std::getline(lines, line);) all.push_back(parse_json(line, file));
        }
        return all;
    }
    const RunDescription run_ = {.project = "columns",
                                 .name = "first",
                                 .config = {{"seed", "42"}, {"bf16", "true"}, {"output_dir", "a b"}},
                                 .texts = {}};
};

TEST_F(TrackioLogTest, WritesRecordsAsTrackioDoes) {
    {
        TrackioLog log(path("run"), run_);
        log.write(1, {{"train/loss", 2.5}, {"train/grad_norm", NAN}});
        EXPECT_EQ(records().size(), 1u);  // the first one does not wait
        log.write(2, {{"train/loss", 2}, {"eval/loss", -INFINITY}});
    }
    const std::vector<Json> all = records();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].at("metrics"), Json({{"train/loss", 2.5}, {"train/grad_norm", "NaN"}}));
    EXPECT_EQ(all[1].at("metrics"), Json({{"train/loss", 2.0}, {"eval/loss", "-Infinity"}}));
    EXPECT_EQ(all[0].at("config"), Json({{"seed", 42.0}, {"bf16", true}, {"output_dir", "a b"}}));
    EXPECT_TRUE(all[1].at("config").is_null());
    for (size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(all[i].at("v"), 1);
        EXPECT_EQ(all[i].at("kind"), "metric");
        EXPECT_EQ(all[i].at("project"), "columns");
        EXPECT_EQ(all[i].at("run"), "first");
        EXPECT_EQ(all[i].at("step"), i + 1);
        EXPECT_EQ(all[i].at("run_id"), all[0].at("run_id"));
        EXPECT_EQ(all[i].at("timestamp").get<std::string>().size(), 32u);
    }
    EXPECT_NE(all[0].at("log_id"), all[1].at("log_id"));
}

TEST_F(TrackioLogTest, AResumedRunKeepsItsId) {
    for (const auto& resumed : {std::optional<int64_t>(), std::optional<int64_t>(1), std::optional<int64_t>()}) {
        TrackioLog log(path("run"), run_, resumed);
        log.write(2, {{"train/loss", 1}});
    }
    std::set<std::string> ids, logs;
    for (const Json& record : records()) {
        ids.insert(record.at("run_id").get<std::string>());
        logs.insert(record.at("log_id").get<std::string>());
    }
    EXPECT_EQ(ids.size(), 2u);  // the third one is a new run
    EXPECT_EQ(logs.size(), 3u);
}

TEST_F(TrackioLogTest, LeavesOneFileForManyRecords) {
    {
        TrackioLog log(path("run"), run_);
        for (int step = 1; step <= 500; ++step) log.write(step, {{"train/loss", 1.0 / step}});
    }
    EXPECT_EQ(records().size(), 500u);
    size_t files = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path("trackio/inbox")))
        files += entry.is_regular_file();
    EXPECT_LE(files, 3u);
}

/// Trackio removes the folder of a writer when it has read its files.
TEST_F(TrackioLogTest, SurvivesItsReader) {
    {
        TrackioLog log(path("run"), run_);
        log.write(1, {{"train/loss", 2}});
        std::filesystem::remove_all(path("trackio/inbox"));
        log.write(2, {{"train/loss", 1}});
    }
    EXPECT_EQ(records().size(), 1u);
}

TEST_F(TrackioLogTest, NamesTheFolderThatItCannotWrite) {
    spill(path("trackio"), "a file");
    expect_error(Exit::storage, path("trackio"), [&] { TrackioLog(path("run"), run_); });
}

}  // namespace
}  // namespace colonnade
