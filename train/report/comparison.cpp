#include "train/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "data/text/unicode.h"
#include "engine/device/terminal.h"
#include "train/report/html.h"
#include "train/report/metric_charts.h"
#include "train/report/report_style.h"

namespace colonnade {
namespace {

/// Keys that name folders of a run, or say how it was started.
const std::set<std::string> names_of_runs = {"output_dir", "prepared_path", "run_name", "overwrite_output_dir",
                                             "resume_from_checkpoint"};

std::string value_of(const ReportData& run, const std::string& key) {
    const auto found = std::ranges::find(run.config, key, &ConfigEntry::key);
    return found == run.config.end() ? "" : found->value;
}

/// The items of all lists, each once, in the order in which they come first.
template <typename Items, typename Name>
std::vector<std::string> all_names(const std::vector<ReportData>& runs, Items items, Name name) {
    std::vector<std::string> names;
    std::set<std::string> known;
    for (const ReportData& run : runs)
        for (const auto& item : run.*items)
            if (known.insert(name(item)).second) names.push_back(name(item));
    return names;
}

template <typename Value>
ComparedRow row(const std::string& name, const std::vector<ReportData>& runs, Value value) {
    ComparedRow row{name, {}};
    for (const ReportData& run : runs) row.values.push_back(value(run));
    return row;
}

std::vector<std::string> run_names(const std::vector<ReportData>& runs) {
    std::vector<std::string> names;
    for (const ReportData& run : runs) {
        const bool alone = std::ranges::count(runs, run.name, &ReportData::name) == 1;
        names.push_back(alone ? run.name : run.folder);
    }
    return names;
}

/// In one line, at most `columns` wide, cut in the middle.
std::string shortened(const std::string& text, size_t columns) {
    std::string line = replace_ill_formed(text);
    std::ranges::replace(line, '\n', ' ');
    if (columns == 0 || display_width(line) <= columns) return line;
    const size_t half = (columns - 3) / 2;
    const char* tail = line.data() + line.size();
    while (display_width(tail) < half) tail -= character_before(tail).bytes;
    return line.substr(0, bytes_within(line, half)) + "..." + tail;
}

std::string text_table(const std::string& title, const Comparison& comparison, const std::vector<ComparedRow>& rows,
                       size_t columns) {
    if (rows.empty()) return "";
    const size_t runs = comparison.runs.size();
    size_t name_width = title.size();
    for (const ComparedRow& row : rows) name_width = std::max(name_width, display_width(row.name));
    const size_t room = columns > name_width ? (columns - name_width) / runs : 0;
    const size_t most = columns == 0 ? 0 : std::max<size_t>(room, 12) - 2;
    std::vector<size_t> widths;
    for (size_t r = 0; r < runs; ++r) {
        size_t width = display_width(shortened(comparison.runs[r], most));
        for (const ComparedRow& row : rows) width = std::max(width, display_width(shortened(row.values[r], most)));
        widths.push_back(width);
    }
    const auto line = [&](const std::string& name, const std::vector<std::string>& values) {
        std::string text = name + std::string(name_width - display_width(name), ' ');
        for (size_t r = 0; r < runs; ++r) {
            const std::string value = shortened(values[r], most);
            text += "  " + value + std::string(widths[r] - display_width(value), ' ');
        }
        return text.erase(text.find_last_not_of(' ') + 1) + "\n";
    };
    std::string text = line(title, comparison.runs);
    for (const ComparedRow& row : rows) text += line(row.name, row.values);
    return text;
}

std::string html_of(const Comparison& comparison, const std::vector<ComparedRow>& rows, const char* what) {
    if (rows.empty()) return "<p>none</p>\n";
    std::vector<std::string> head = {what};
    head.insert(head.end(), comparison.runs.begin(), comparison.runs.end());
    std::vector<std::vector<std::string>> cells;
    for (const ComparedRow& row : rows) {
        cells.push_back({row.name});
        cells.back().insert(cells.back().end(), row.values.begin(), row.values.end());
    }
    return html_table(head, cells);
}

}  // namespace

Comparison comparison_of(const std::vector<ReportData>& runs) {
    Comparison all{.runs = run_names(runs)};
    all.states = {row("state", runs, [](const ReportData& run) { return run.state; }),
                  row("step", runs,
                      [](const ReportData& run) {
                          return run.total_steps > 0 ? fmt::format("{} of {}", run.step, run.total_steps)
                                                     : fmt::format("{}", run.step);
                      }),
                  row("device", runs, [](const ReportData& run) { return run.facts.device; })};
    for (const std::string& key :
         all_names(runs, &ReportData::config, [](const ConfigEntry& entry) { return entry.key; })) {
        if (names_of_runs.contains(key)) continue;
        ComparedRow values = row(key, runs, [&](const ReportData& run) { return value_of(run, key); });
        if (std::ranges::any_of(values.values, [&](const std::string& v) { return v != values.values[0]; }))
            all.config.push_back(std::move(values));
    }
    all.numbers.push_back(row("best", runs, [](const ReportData& run) {
        return run.best ? fmt::format("{} {} (step {:.0f})", run.best->metric, number_text(run.best->at.value),
                                      run.best->at.step)
                        : "";
    }));
    for (const std::string& metric :
         all_names(runs, &ReportData::metrics, [](const auto& named) { return named.first; }))
        all.numbers.push_back(row(metric, runs, [&](const ReportData& run) {
            const Curve* const curve = run.metric(metric);
            return curve && !curve->empty() ? number_text(curve->last().value) : "";
        }));
    return all;
}

std::string comparison_text(const Comparison& comparison, size_t columns) {
    std::string text = text_table("run", comparison, comparison.states, columns) + "\n";
    text += comparison.config.empty() ? "the configs have no key that differs\n"
                                      : text_table("config", comparison, comparison.config, columns);
    return text + "\n" + text_table("last value", comparison, comparison.numbers, columns);
}

std::string comparison_page(std::vector<ReportData> runs) {
    const Comparison comparison = comparison_of(runs);
    for (size_t r = 0; r < runs.size(); ++r) runs[r].name = comparison.runs[r];
    std::string charts;
    for (const Chart& chart : metric_charts(runs)) charts += "<div>" + svg_of(chart) + "</div>\n";
    const std::string title = fmt::format("{} runs", runs.size());
    const std::string body = "<header><h1>" + title + "</h1></header>\n" +
                             html_of(comparison, comparison.states, "run") + "<h2>Keys that differ</h2>\n" +
                             html_of(comparison, comparison.config, "key") +
                             "<h2>Curves</h2>\n<div class=\"charts\">\n" + charts + "</div>\n" +
                             "<h2>Last values</h2>\n" + html_of(comparison, comparison.numbers, "metric");
    return html_page(title, body);
}

}  // namespace colonnade
