// The report of real runs: it is there from the start to the end, says what the run did, and never stops it.

#include "train/run/run_report.h"

#include "tests/support/markup.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class RunReportTest : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(
            "max_steps: 12\nval_size: 16\neval_steps: 4\nlogging_steps: 1\nlearning_rate: 0.01\n"
            "save_steps: 6\nsave_total_limit: 0\neval_table_size: 3\neval_max_new_tokens: 5\neval_on_start: true\n");
    }
    std::string page(const std::string& run) const { return slurp(path(run + "/report.html")); }
};

TEST_F(RunReportTest, ShowsTheRun) {
    const std::string printed = train(config(), {output("run")});
    EXPECT_NE(printed.find("report         " + path("run/report.html")), std::string::npos) << printed;
    const std::string html = page("run");
    EXPECT_EQ(markup_trouble(html), "");
    EXPECT_EQ(occurrences(html, "<span class=\"state finished\">"), 1);
    EXPECT_EQ(occurrences(html, "<progress max=\"12\" value=\"12\">"), 1);
    for (const Json& record : read_log(path("run")))
        for (const auto& [name, value] : record.items())
            if (value.is_number() && name != "step" && name != "epoch") {
                EXPECT_GE(occurrences(html, "<td>" + name + "</td>"), 1) << name;
            }
    EXPECT_EQ(occurrences(html, "<div class=\"sample\">"), 3);
    EXPECT_EQ(occurrences(html, "<span class=\"faint\">at step 0</span>"), 3);
    EXPECT_EQ(occurrences(html, "<span class=\"faint\">at step 12</span>"), 3);
    EXPECT_EQ(occurrences(html, "<svg class=\"mask\""), 1);
    EXPECT_EQ(occurrences(html, "<svg class=\"bars\""), 2);  // lengths of both splits
    EXPECT_EQ(occurrences(html, "unigram model"), 1);
    EXPECT_EQ(occurrences(html, "<td>checkpoint-6/</td>"), 1);
    EXPECT_EQ(occurrences(html, "<tr><td>learning_rate</td><td>0.01</td><td>2e-05"), 1);
    EXPECT_EQ(occurrences(html, "planned at the peak"), 1);
    EXPECT_EQ(occurrences(html, "most in use by the process"), 1);

    // The program makes the same page again, but for its own size of files that do not change.
    const Program::Result again = run("colonnade", {"report", path("run"), "--curves", path("loss.svg")});
    EXPECT_EQ(again.exit, 0) << again.err;
    EXPECT_EQ(again.out, path("run/report.html") + "\n" + path("loss.svg") + "\n");
    EXPECT_EQ(page("run"), html);
    EXPECT_EQ(markup_trouble(slurp(path("loss.svg"))), "");
}

TEST_F(RunReportTest, MarksBestAndResumed) {
    train(config(), {output("run"), "max_steps=6", "warmup_ratio=0", "lr_scheduler_type=constant"});
    train(config(), {output("run"), "resume_from_checkpoint=auto", "warmup_ratio=0", "lr_scheduler_type=constant"});
    RunReport report(path("run"));
    const ReportData data = report.read();
    ASSERT_EQ(data.starts.size(), 2u);
    EXPECT_EQ(data.starts[1].resumed_step, 6);
    EXPECT_EQ(data.total_steps, 12);
    std::vector<double> losses;
    for (const Json& record : read_log(path("run")))
        if (record.contains("eval_loss") && record.at("step") > 0) losses.push_back(record.at("eval_loss"));
    ASSERT_TRUE(data.best.has_value());
    EXPECT_EQ(data.best->at.value, *std::ranges::min_element(losses));
    EXPECT_GE(occurrences(page("run"), "class=\"resumed\""), 2);
}

TEST_F(RunReportTest, SaysHowARunEnded) {
    expect_error(Exit::numerics, "", [&] { train(config(), {output("failed"), "learning_rate=1e30"}); });
    EXPECT_EQ(occurrences(page("failed"), "<span class=\"state failed\">"), 1);
    EXPECT_EQ(occurrences(page("failed"), "<p class=\"warning\">error: "), 1);
    // A run that is gone without a word.
    train(config(), {output("killed")});
    Json record = read_json_file(path("killed/run.json"));
    record["starts"][0]["state"] = "running";
    record["starts"][0]["pid"] = 1 << 30;
    spill(path("killed/run.json"), record.dump());
    EXPECT_EQ(RunReport(path("killed")).read().state, "killed");
}

TEST_F(RunReportTest, ItsFailureEndsNoRun) {
    fs::create_directories(path("run/report.html"));
    std::string printed;
    const Program::Result result = run("train", {config(), output("run")});
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_EQ(occurrences(result.err, "report.html is not written any more: "), 1) << result.err;
    EXPECT_TRUE(fs::exists(path("run/model.safetensors")));
    EXPECT_EQ(listing(path("run")).find("tmp-"), std::string::npos);
}

TEST_F(RunReportTest, WithoutALogHasNoCurves) {
    train(config(), {output("run"), "report_to=none"});
    EXPECT_EQ(occurrences(page("run"), "report_to has no jsonl"), 1);
    EXPECT_EQ(occurrences(page("run"), "<svg class=\"chart\""), 0);
    const Program::Result result = run("colonnade", {"report", path("run"), "--curves", path("loss.svg")});
    EXPECT_EQ(result.exit, 3);
    EXPECT_NE(result.err.find("report_to must contain jsonl"), std::string::npos) << result.err;
}

/// The same page as a user sees it who has no report.json: that of an older version.
TEST_F(RunReportTest, OfAnOlderRunShowsWhatThereIs) {
    train(config(), {output("run")});
    fs::remove(path("run/report.json"));
    RunReport(path("run")).write();
    EXPECT_EQ(markup_trouble(page("run")), "");
    EXPECT_EQ(occurrences(page("run"), "<svg class=\"mask\""), 0);
    EXPECT_GE(occurrences(page("run"), "<svg class=\"chart\""), 4);
    EXPECT_EQ(occurrences(page("run"), "<tr><td>max_steps</td><td>12</td><td>0</td></tr>"), 1);
}

TEST_F(RunReportTest, RunsAreCompared) {
    train(config(), {output("a")});
    train(config(), {output("b"), "learning_rate=0.02", "max_steps=8"});
    const Program::Result result = run("colonnade", {"compare", path("a"), path("b"), "--output", path("both.html")});
    EXPECT_EQ(result.exit, 0) << result.err;
    for (const char* line : {"\nlearning_rate  ", "\nmax_steps ", "\neval_loss ", "12 of 12  8 of 8"})
        EXPECT_NE(result.out.find(line), std::string::npos) << line << " in\n" << result.out;
    EXPECT_EQ(result.out.find("\noutput_dir"), std::string::npos) << result.out;
    EXPECT_EQ(markup_trouble(slurp(path("both.html"))), "");
    const struct {
        std::vector<std::string> arguments;
        int exit;
        std::string message;
    } wrong[] = {
        {{path("a")}, 2, "compare takes 2 to 32 runs, found 1"},
        {{path("a"), path("a")}, 2, "a run is given twice"},
        {{path("a"), path("prepared")}, 3, "holds no run: expected a config.yaml"},
    };
    for (const auto& w : wrong) {
        std::vector<std::string> arguments = {"compare"};
        arguments.insert(arguments.end(), w.arguments.begin(), w.arguments.end());
        const Program::Result refused = run("colonnade", arguments);
        EXPECT_EQ(refused.exit, w.exit) << refused.err;
        EXPECT_NE(refused.err.find(w.message), std::string::npos) << refused.err;
    }
}

}  // namespace
}  // namespace colonnade
