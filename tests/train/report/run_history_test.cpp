#include "train/report/run_history.h"

#include "tests/support/file_test.h"
#include "train/report/report_page.h"

namespace colonnade {
namespace {

class RunHistoryTest : public FileTest {
  protected:
    void append(const std::string& name, const std::string& text) const {
        std::ofstream(path(name), std::ios::app | std::ios::binary) << text;
    }
    static ReportData data_of(const RunHistory& history) {
        ReportData data;
        history.put_into(data);
        return data;
    }
};

const std::string log_lines =
    R"({"step": 0, "epoch": 0, "eval_loss": 1.0})"
    "\n"
    R"({"step": 0, "epoch": 0, "samples": [{"row": "a:1", "prompt": "p", "answer": "x", "reference": "r"}]})"
    "\n"
    R"({"step": 1, "epoch": 0.5, "loss": 3, "grad_norm": 2})"
    "\n"
    R"({"step": 2, "epoch": 1, "loss": null, "grad_norm": 9, "non_finite": {"loss": "nan"}})"
    "\n"
    R"({"step": 2, "epoch": 1, "spike_loss": 8, "spike_grad_norm": 9, "skipped_steps": 1, "rows": ["a.jsonl:7"]})"
    "\n"
    R"({"step": 3, "epoch": 1.5, "eval_loss": 2.5})"
    "\n"
    R"({"step": 3, "epoch": 1.5, "samples": [{"row": "a:1", "prompt": "p", "answer": "y", "reference": "r"}]})"
    "\n"
    R"({"step": 6, "epoch": 3, "eval_loss": 2.75})"
    "\n";
const std::string messages =
    "=== 2026-11-30: train my.yaml\nstep 1/6: loss 3\nwarning: one\nnote: no warning\nerror: two\n";

TEST_F(RunHistoryTest, ReadsWhatARunWrote) {
    append("metrics.jsonl", log_lines);
    append("train.log", messages);
    RunHistory history(path(""), {.metric = "eval_loss"});
    history.read_more();
    const ReportData data = data_of(history);
    EXPECT_TRUE(data.has_log);
    EXPECT_EQ(data.step, 6);
    std::vector<std::string> names;
    for (const auto& [name, curve] : data.metrics) names.push_back(name);
    EXPECT_EQ(names, (std::vector<std::string>{"eval_loss", "loss", "grad_norm", "spike_loss", "spike_grad_norm",
                                               "skipped_steps"}));
    EXPECT_EQ(data.metric("loss")->size(), 1);
    EXPECT_EQ(data.metric("loss")->not_finite(), 1);
    // The evaluation before the first step does not count, as in the run.
    ASSERT_TRUE(data.best.has_value());
    EXPECT_EQ(data.best->at, (CurvePoint{3, 2.5}));
    ASSERT_EQ(data.samples.size(), 1u);
    EXPECT_EQ(data.samples[0].first, "x");
    EXPECT_EQ(data.samples[0].last, "y");
    EXPECT_EQ(data.samples[0].last_step, 3);
    ASSERT_EQ(data.spikes.size(), 1u);
    EXPECT_EQ(data.spikes[0].loss, 8);
    EXPECT_EQ(data.spikes[0].rows, std::vector<std::string>{"a.jsonl:7"});
    EXPECT_EQ(data.warnings, (std::vector<std::string>{"warning: one", "error: two"}));
}

/// Wherever a line is torn when the report reads it.
TEST_F(RunHistoryTest, InPiecesIsAsAtOnce) {
    append("metrics.jsonl", log_lines);
    append("train.log", messages);
    RunHistory at_once(path(""), {.metric = "eval_loss"});
    at_once.read_more();
    const std::string page = report_page(data_of(at_once));
    for (const size_t piece : {size_t{1}, size_t{17}, size_t{100}}) {
        std::filesystem::remove(path("metrics.jsonl"));
        std::filesystem::remove(path("train.log"));
        RunHistory history(path(""), {.metric = "eval_loss"});
        history.read_more();  // there is no log yet
        EXPECT_FALSE(data_of(history).has_log);
        for (size_t at = 0; at < std::max(log_lines.size(), messages.size()); at += piece) {
            if (at < log_lines.size()) append("metrics.jsonl", log_lines.substr(at, piece));
            if (at < messages.size()) append("train.log", messages.substr(at, piece));
            history.read_more();
        }
        EXPECT_EQ(report_page(data_of(history)), page) << piece;
    }
}

TEST_F(RunHistoryTest, IsBounded) {
    for (int i = 0; i < 400; ++i) {
        append("metrics.jsonl", fmt::format("{{\"step\": {0}, \"name{0}\": 1, \"spike_loss\": 2}}\n", i));
        append("metrics.jsonl",
               fmt::format("{{\"step\": {0}, \"samples\": [{{\"row\": \"{0}\", \"answer\": \"{1}\"}}]}}\n", i,
                           std::string(10000, 'a')));
        append("train.log", fmt::format("warning: {}\n", i));
    }
    RunHistory history(path(""), {});
    history.read_more();
    const ReportData data = data_of(history);
    EXPECT_EQ(data.metrics.size(), RunHistory::most_metrics);
    EXPECT_EQ(data.spikes.size(), RunHistory::most_spikes);
    EXPECT_EQ(data.spike_count, 400);
    EXPECT_EQ(data.samples.size(), RunHistory::most_samples);
    EXPECT_LE(data.samples[0].last.size(), RunHistory::most_text_bytes + 4);
    EXPECT_EQ(data.warnings.size(), RunHistory::most_warnings);
    EXPECT_EQ(data.warnings.back(), "warning: 399");
    EXPECT_EQ(data.warning_count, 400);
}

TEST_F(RunHistoryTest, NamesTheLineThatIsWrong) {
    for (const char* bad : {"[]", "{\"loss\": 1}", "{\"step\": \"1\"}", "{"}) {
        std::filesystem::remove(path("metrics.jsonl"));
        append("metrics.jsonl", std::string("{\"step\": 1}\n") + bad + "\n");
        RunHistory history(path(""), {});
        expect_error(Exit::data, "metrics.jsonl:2", [&] { history.read_more(); });
    }
}

}  // namespace
}  // namespace colonnade
