#include "train/report/metric_charts.h"

#include <algorithm>
#include <array>

#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr size_t most_charts = 64;
/// Points of all lines of a page together: it stays below 2 MB.
constexpr size_t most_spans = 16000;

constexpr std::array without_chart = {"num_tokens",  "samples_per_second", "step_seconds", "skipped_steps",
                                      "spike_loss",  "spike_grad_norm",    "eval_samples", "eval_tokens_per_second",
                                      "eval_runtime"};

/// Parts of names. Rates, accuracies and rewards are compared on a linear axis.
constexpr std::array may_span_decades = {"loss", "perplexity", "norm"};

bool is_evaluation(const std::string& metric) {
    return metric.starts_with("eval_");
}

/// The chart of a metric, by name; empty if it has none.
std::string chart_of(const std::string& metric) {
    if (std::ranges::find(without_chart, metric) != without_chart.end()) return "";
    std::string name = is_evaluation(metric) ? metric.substr(5) : metric;
    for (const std::string end : {"/chosen", "/rejected"})
        if (name.ends_with(end)) return name.substr(0, name.size() - end.size()) + "/chosen, rejected";
    return name;
}

struct NamedChart {
    std::string name;
    Chart chart;
};

Chart& chart_named(std::vector<NamedChart>& charts, const std::string& name) {
    for (NamedChart& each : charts)
        if (each.name == name) return each.chart;
    Chart chart{.title = name, .lines = {}};
    chart.may_be_logarithmic =
        std::ranges::any_of(may_span_decades, [&](const char* part) { return name.find(part) != name.npos; });
    charts.push_back({name, std::move(chart)});
    return charts.back().chart;
}

/// Orders the charts and bounds the size of the page.
std::vector<Chart> settled(std::vector<NamedChart> named) {
    std::ranges::stable_partition(named, [](const NamedChart& each) { return each.name == "loss"; });
    if (named.size() > most_charts) named.resize(most_charts);
    size_t lines = 1;
    for (const NamedChart& each : named) lines += each.chart.lines.size();
    std::vector<Chart> charts;
    for (NamedChart& each : named) {
        each.chart.spans = std::clamp<size_t>(most_spans / lines, 20, 300);
        charts.push_back(std::move(each.chart));
    }
    return charts;
}

/// What marks a run's loss and its best metric.
void mark(std::vector<NamedChart>& charts, const ReportData& run) {
    std::vector<double> resumed;
    for (const StartEntry& start : run.starts)
        if (start.resumed_step > 0) resumed.push_back(static_cast<double>(start.resumed_step));
    for (auto& [name, chart] : charts) chart.resumed = resumed;
    if (run.best && run.metric(run.best->metric))
        if (const std::string name = chart_of(run.best->metric); !name.empty())
            chart_named(charts, name).marks.push_back({ChartMark::best, run.best->at});
    if (!run.metric("loss")) return;
    Chart& loss = chart_named(charts, "loss");
    if (run.facts.unigram_loss > 0) loss.levels.push_back({"unigram model", run.facts.unigram_loss});
    for (const SpikeEntry& spike : run.spikes)
        loss.marks.push_back({ChartMark::spike, {static_cast<double>(spike.step), spike.loss}});
}

}  // namespace

std::vector<Chart> metric_charts(const ReportData& run) {
    std::vector<NamedChart> charts;
    for (const auto& [metric, curve] : run.metrics) {
        const std::string name = chart_of(metric);
        if (name.empty() || curve.empty()) continue;
        chart_named(charts, name).lines.push_back({.name = metric, .curve = &curve});
    }
    for (auto& [name, chart] : charts) {  // training has the first colour everywhere
        std::ranges::stable_partition(chart.lines, [](const ChartLine& line) { return !is_evaluation(line.name); });
        for (size_t i = 0; i < chart.lines.size(); ++i) chart.lines[i].color = static_cast<int>(i);
    }
    mark(charts, run);
    return settled(std::move(charts));
}

std::vector<Chart> metric_charts(const std::vector<ReportData>& runs) {
    std::vector<NamedChart> charts;
    for (size_t r = 0; r < runs.size(); ++r)
        for (const auto& [metric, curve] : runs[r].metrics) {
            if (chart_of(metric).empty() || curve.empty()) continue;
            chart_named(charts, metric)
                .lines.push_back({.name = runs[r].name, .curve = &curve, .color = static_cast<int>(r)});
        }
    std::ranges::stable_partition(charts, [](const NamedChart& each) { return each.name == "eval_loss"; });
    return settled(std::move(charts));
}

Chart loss_chart(const ReportData& run) {
    for (Chart& chart : metric_charts(run))
        if (chart.title == "loss" && !chart.lines.empty()) {
            chart.title = "loss of " + run.name;
            return chart;
        }
    fail(Exit::data, "{}: its metrics.jsonl has no loss; report_to must contain jsonl", run.folder);
}

}  // namespace colonnade
