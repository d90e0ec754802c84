#include "train/report/report_page.h"

#include <gtest/gtest.h>

#include "tests/support/file_test.h"
#include "tests/support/markup.h"
#include "train/report/comparison.h"
#include "train/report/metric_charts.h"

namespace colonnade {
namespace {

const std::string hostile = "</script><script>alert('1')</script> & \"x\" \xFF";

/// A run with something in every section. Its texts are hostile.
ReportData hostile_run() {
    ReportData run{.folder = hostile, .name = hostile, .stage = hostile, .finetuning = hostile};
    run.state = run.state_text = hostile;
    run.step = 7;
    run.total_steps = 9;
    run.seconds_left = 75;
    ReportFacts& f = run.facts;
    f.model = f.device = f.plan = hostile;
    f.splits = {{.name = hostile,
                 .files = {{hostile, hostile, 3, 2}},
                 .notes = {{hostile, hostile, 1, hostile}},
                 .rows = 3,
                 .samples = 2,
                 .tokens = 9,
                 .learned = 4,
                 .lengths = {{4, 6, 2}}}};
    f.sharing = {hostile};
    f.packed_rows = 1;
    f.mask = {4, 2, {"#.", "/#"}};
    f.memory = {{hostile, 1 << 20}};
    f.peak = 1 << 20;
    f.unigram_loss = 4;
    run.starts = {{.started = hostile,
                   .ended = hostile,
                   .state = hostile,
                   .reason = hostile,
                   .command = hostile,
                   .program = hostile,
                   .host = hostile,
                   .resumed_step = 3,
                   .changes = {hostile},
                   .machine = {{hostile, hostile}}}};
    run.config = {{hostile, hostile, hostile, true}};
    for (const std::string& metric : {std::string("loss"), hostile}) {
        run.metrics.emplace_back(metric, Curve());
        for (int i = 0; i < 5; ++i) run.metrics.back().second.add(i, 3 - i);
    }
    run.best = BestEntry{"loss", {4, -1}};
    run.spikes = {{2, 9, 9, {hostile}}};
    run.spike_count = 1;
    run.samples = {{hostile, hostile, hostile, hostile, hostile, 0, 4}};
    run.warnings = {hostile};
    run.warning_count = 2;
    run.checkpoints = {hostile};
    run.files = {{hostile, hostile}};
    return run;
}

TEST(ReportPage, EscapesWhateverItShows) {
    const std::string page = report_page(hostile_run());
    EXPECT_EQ(markup_trouble(page), "");
    EXPECT_EQ(occurrences(page, "alert('1')"), 1);  // as JSON, the name of a chart's line
    EXPECT_EQ(occurrences(page, "<script>alert"), 0);
    EXPECT_EQ(occurrences(page, "&lt;script&gt;alert"), occurrences(page, "alert(&#39;1&#39;)"));
    EXPECT_GT(occurrences(page, "alert(&#39;1&#39;)"), 40);
    const std::string compared = comparison_page({hostile_run(), hostile_run()});
    EXPECT_EQ(markup_trouble(compared), "");
    EXPECT_EQ(occurrences(compared, "<script>alert"), 0);
}

TEST(ReportPage, LoadsNothing) {
    const std::string page = report_page(hostile_run());
    for (const char* part : {"src=", "href=", "@import", "url(", "fetch(", "XMLHttp"})
        EXPECT_EQ(occurrences(page, part), 0) << part;
    EXPECT_EQ(occurrences(page, "default-src 'none'"), 1);
    EXPECT_EQ(occurrences(page, "http"), occurrences(page, "http://www.w3.org/2000/svg") + 1);  // + http-equiv
}

TEST(ReportPage, OfAnEmptyRunIsAPage) {
    const std::string page = report_page({});
    EXPECT_EQ(markup_trouble(page), "");
    EXPECT_EQ(occurrences(page, "<h2>"), 1);  // curves, which are not there yet
    EXPECT_EQ(occurrences(page, "No step is logged yet."), 1);
}

/// However long the run and however many metrics it has.
TEST(ReportPage, IsSmall) {
    ReportData run{.name = "long"};
    for (int metric = 0; metric < 256; ++metric) {
        run.metrics.emplace_back("rewards/some_long_name_of_a_metric_" + std::to_string(metric), Curve());
        for (int i = 0; i < 20000; ++i) run.metrics.back().second.add(i * 1000, 1e-3 * ((i * 7919) % 10007) - 5.00001);
    }
    EXPECT_LT(report_page(run).size(), size_t{2} << 20);
    run.metrics.resize(12);
    EXPECT_LT(report_page(run).size(), size_t{1} << 20);
    EXPECT_LT(comparison_page(std::vector<ReportData>(32, run)).size(), size_t{2} << 20);
}

Curve curve_of(std::initializer_list<double> values) {
    Curve curve;
    for (const double value : values) curve.add(static_cast<double>(curve.size()), value);
    return curve;
}

ReportData dpo_run() {
    ReportData run{.name = "dpo"};
    for (const char* metric : {"rewards/chosen", "rewards/rejected", "rewards/margins", "loss", "learning_rate",
                               "num_tokens", "eval_loss", "eval_rewards/margins", "eval_runtime"})
        run.metrics.emplace_back(metric, curve_of({1, 2, 3}));
    return run;
}

TEST(MetricCharts, PutTogetherWhatBelongsTogether) {
    const ReportData run = dpo_run();
    std::vector<std::vector<std::string>> lines;
    for (const Chart& chart : metric_charts(run)) {
        lines.emplace_back();
        for (const ChartLine& line : chart.lines) lines.back().push_back(line.name);
    }
    EXPECT_EQ(lines, (std::vector<std::vector<std::string>>{{"loss", "eval_loss"},
                                                            {"rewards/chosen", "rewards/rejected"},
                                                            {"rewards/margins", "eval_rewards/margins"},
                                                            {"learning_rate"}}));
}

TEST(ReportPage, NamesEveryMetric) {
    const std::string page = report_page(dpo_run());
    for (const auto& [metric, curve] : dpo_run().metrics)
        EXPECT_GE(occurrences(page, "<td>" + metric + "</td>"), 1) << metric;
}

TEST(MetricCharts, MarkTheRun) {
    ReportData run = dpo_run();
    run.best = BestEntry{"eval_rewards/margins", {2, 3}};
    run.starts = {{.resumed_step = 0}, {.resumed_step = 2}};
    run.spikes = {{.step = 1, .loss = 8}};
    run.facts.unigram_loss = 5;
    const std::vector<Chart> charts = metric_charts(run);
    EXPECT_EQ(charts[0].resumed, std::vector<double>{2});
    ASSERT_EQ(charts[0].marks.size(), 1u);
    EXPECT_EQ(charts[0].marks[0].kind, ChartMark::spike);
    EXPECT_EQ(charts[0].marks[0].at, (CurvePoint{1, 8}));
    EXPECT_EQ(charts[0].levels.size(), 1u);
    ASSERT_EQ(charts[2].marks.size(), 1u);
    EXPECT_EQ(charts[2].marks[0].kind, ChartMark::best);
    EXPECT_EQ(charts[2].marks[0].at, (CurvePoint{2, 3}));
    run.metrics.clear();
    expect_error(Exit::data, "its metrics.jsonl has no loss", [&] { loss_chart(run); });
}

using FactsTest = FileTest;

TEST_F(FactsTest, SurviveTheirFile) {
    const ReportFacts facts = [] {
        ReportFacts f = hostile_run().facts;
        f.given = {"seed", "datasets[0].path"};
        return f;
    }();
    write_facts(path(""), facts);
    const ReportFacts read = read_facts(path(""));
    ReportData run, again;
    run.facts = facts, again.facts = read;
    EXPECT_EQ(report_page(run), report_page(again));
    EXPECT_EQ(read.given, facts.given);
}

TEST_F(FactsTest, RefuseWhatTheyAreNot) {
    EXPECT_TRUE(read_facts(path("")).splits.empty());  // no file
    for (const char* bad : {"[]", "{}", R"({"format": "other"})", R"({"format": "colonnade-report", "splits": 3})",
                            R"({"format": "colonnade-report", "fill": "x"})"}) {
        spill(path("report.json"), bad);
        expect_error(Exit::data, "report.json: ", [&] { read_facts(path("")); });
    }
}

TEST(Comparison, HasTheKeysThatDiffer) {
    ReportData a = dpo_run(), b = dpo_run(), c = dpo_run();
    const auto config = [](const char* rate, const char* dir) {
        return std::vector<ConfigEntry>{
            {"learning_rate", rate, "1e-06"}, {"seed", "42", "42"}, {"output_dir", dir, ""}};
    };
    a.config = config("1e-5", "a"), b.config = config("2e-5", "b"), c.config = config("1e-5", "c");
    c.config.push_back({"new_key", "7", "0"});
    b.name = "other", c.folder = "runs/c", a.folder = "runs/a";
    b.metrics.back().second = curve_of({4, 0.25});
    b.metrics.erase(b.metrics.begin());
    const Comparison all = comparison_of({a, b, c});
    EXPECT_EQ(all.runs, (std::vector<std::string>{"runs/a", "other", "runs/c"}));
    ASSERT_EQ(all.config.size(), 2u);
    EXPECT_EQ(all.config[0].name, "learning_rate");
    EXPECT_EQ(all.config[0].values, (std::vector<std::string>{"1e-5", "2e-5", "1e-5"}));
    EXPECT_EQ(all.config[1].name, "new_key");
    EXPECT_EQ(all.config[1].values, (std::vector<std::string>{"", "", "7"}));
    const auto number = [&](const std::string& name) {
        return std::ranges::find(all.numbers, name, &ComparedRow::name)->values;
    };
    EXPECT_EQ(number("eval_runtime"), (std::vector<std::string>{"3", "0.25", "3"}));
    EXPECT_EQ(number("rewards/chosen"), (std::vector<std::string>{"3", "", "3"}));
    const std::string text = comparison_text(all, 0);
    EXPECT_NE(text.find("learning_rate  1e-5    2e-5   1e-5\n"), std::string::npos) << text;
    for (const std::string page = comparison_page({a, b, c}); const std::string& run : all.runs)
        EXPECT_GE(occurrences(page, ">" + run + "</text>"), 6) << run;  // in the legend of every chart
}

TEST(Comparison, FitsItsTerminal) {
    ReportData a{.name = "one"}, b{.name = "two"};
    a.config = {{"datasets", "[{path: " + std::string(300, 'a') + "}]", ""}};
    b.config = {{"datasets", "[{path: caf\xC3\xA9" + std::string(300, 'b') + "}]", ""}};
    const std::string text = comparison_text(comparison_of({a, b}), 60);
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
        EXPECT_LE(end - begin, 60u) << text.substr(begin, end - begin);
    EXPECT_NE(text.find("[{path: "), std::string::npos) << text;
    EXPECT_NE(text.find("...bb"), std::string::npos) << text;
    EXPECT_NE(comparison_text(comparison_of({a, b}), 0).find(std::string(300, 'b')), std::string::npos);
    b.config = a.config;
    EXPECT_NE(comparison_text(comparison_of({a, b}), 60).find("the configs have no key that differs"),
              std::string::npos);
}

}  // namespace
}  // namespace colonnade
