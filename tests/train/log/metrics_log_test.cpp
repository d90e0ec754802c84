#include "train/log/metrics_log.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/io/json.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

class MetricsLogTest : public FileTest {
  protected:
    std::string log_path() const { return path("metrics.jsonl"); }
};

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
        lines.push_back(text.substr(begin, end - begin));
    return lines;
}

TEST_F(MetricsLogTest, WritesOneObjectPerLineAtOnce) {
    MetricsLog log(folder_, {.jsonl = true});
    log.write(10, 0.25, {{"loss", 2.5}, {"num_tokens", int64_t{1} << 53}});
    log.write(10, 0.25, {{"eval_loss", 2.25}});
    const auto lines = lines_of(slurp(log_path()));  // while the log is still open
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(lines[0], R"({"step":10,"epoch":0.25,"loss":2.5,"num_tokens":9007199254740992})");
    EXPECT_EQ(lines[1], R"({"step":10,"epoch":0.25,"eval_loss":2.25})");
    EXPECT_FALSE(std::filesystem::exists(path("runs")));
}

TEST_F(MetricsLogTest, StaysValidJsonWithoutFiniteNumbers) {
    const std::string line = metrics_line(3, 0.5, {{"loss", NAN}, {"grad_norm", -INFINITY}, {"learning_rate", 1e-5}});
    const Json json = parse_json(line, "line");
    EXPECT_TRUE(json["loss"].is_null());
    EXPECT_TRUE(json["grad_norm"].is_null());
    EXPECT_EQ(json["learning_rate"], 1e-5);
    EXPECT_EQ(json["non_finite"], (Json{{"loss", "nan"}, {"grad_norm", "-inf"}}));
}

TEST_F(MetricsLogTest, DoublesComeBackBitForBit) {
    for (const double value : {0.1, 1.0 / 3, 2e-5, 5e-324, 1.7976931348623157e308})
        EXPECT_EQ(parse_json(metrics_line(1, 0, {{"loss", value}}), "line")["loss"].get<double>(), value);
}

TEST_F(MetricsLogTest, AResumedLogHasEachStepOnce) {
    std::string until_20;
    {
        MetricsLog log(folder_, {.jsonl = true});
        for (int64_t step = 10; step <= 40; step += 10) {
            log.write(step, 0.1, {{"loss", static_cast<double>(step)}});
            if (step == 20) until_20 = slurp(log_path());
        }
    }
    MetricsLog resumed(folder_, {.jsonl = true}, 20);
    EXPECT_EQ(slurp(log_path()), until_20);
    resumed.write(30, 0.1, {{"loss", -30.0}});
    EXPECT_EQ(read_series(log_path(), "loss").values, (std::vector<double>{10, 20, -30}));
}

TEST_F(MetricsLogTest, ANewRunReplacesTheLog) {
    MetricsLog(folder_, {.jsonl = true}).write(1, 0, {{"loss", 1.0}});
    MetricsLog(folder_, {.jsonl = true}).write(2, 0, {{"loss", 2.0}});
    EXPECT_EQ(read_series(log_path(), "loss").steps, std::vector<double>{2});
}

TEST_F(MetricsLogTest, CutsAtTheFirstLineThatIsLaterOrIncomplete) {
    const std::string one = "{\"step\":1}\n", two = "{\"step\":2,\"loss\":null}\n";
    const struct {
        std::string log, kept;
    } cases[] = {
        {"", ""},
        {one + two, one + two},
        {one + two + "{\"step\":3}\n", one + two},
        {one + two + "{\"step\":2,\"lo", one + two},      // killed during a write
        {one + two + "{\"step\":2}", one + two},          // complete except for its line break
        {one + std::string(64, '\0') + "\n" + two, one},  // pages that never reached the disk
        {one + "{\"loss\":2}\n" + two, one},              // not of this log
        {one + "[2]\n" + two, one},
        {one + "{\"step\":\"2\"}\n", one},
    };
    for (const auto& c : cases) {
        spill(path("log"), c.log);
        EXPECT_EQ(std::string(c.log).substr(0, log_bytes_until(path("log"), 2)), c.kept) << c.log;
    }
}

TEST_F(MetricsLogTest, ReadsASeriesPastOtherLines) {
    MetricsLog log(folder_, {.jsonl = true});
    log.write(1, 0, {{"loss", 3.0}});
    log.write(1, 0, {{"eval_loss", 2.0}});
    log.write(2, 0, {{"loss", NAN}});
    log.write(3, 0, {{"loss", int64_t{1}}});
    const Series loss = read_series(log_path(), "loss");
    EXPECT_EQ(loss.name, "loss");
    EXPECT_EQ(loss.steps, (std::vector<double>{1, 3}));
    EXPECT_EQ(loss.values, (std::vector<double>{3, 1}));
    EXPECT_TRUE(read_series(log_path(), "accuracy").steps.empty());
}

TEST_F(MetricsLogTest, ADamagedLineIsNamed) {
    const struct {
        std::string log, message;
    } cases[] = {{"{\"step\":1}\n{\"loss\":2}\n", ":2: key 'step' is missing"}, {"{\"step\":1}\n{]\n", ":2"}};
    for (const auto& c : cases) {
        spill(log_path(), c.log);
        expect_error(Exit::data, log_path() + c.message, [&] { read_series(log_path(), "loss"); });
    }
}

TEST_F(MetricsLogTest, ReportsToTensorBoardUnderTrainAndEval) {
    MetricsLog log(folder_, {.tensorboard = true});
    log.write(1, 0, {{"loss", 3.0}, {"eval_loss", 2.0}});
    EXPECT_FALSE(std::filesystem::exists(log_path()));
    const auto file = std::filesystem::directory_iterator(path("runs"))->path();
    EXPECT_TRUE(file.filename().string().starts_with("events.out.tfevents.")) << file;
    const std::string bytes = slurp(file);
    for (const char* tag : {"train/epoch", "train/loss", "eval/loss"})
        EXPECT_NE(bytes.find(tag), std::string::npos) << tag;
    EXPECT_EQ(bytes.find("eval_loss"), std::string::npos);
}

}  // namespace
}  // namespace colonnade
