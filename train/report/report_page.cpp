#include "train/report/report_page.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "engine/device/human_units.h"
#include "train/report/html.h"
#include "train/report/metric_charts.h"
#include "train/report/report_style.h"

namespace colonnade {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string count(int64_t number) {
    return fmt::format("{}", number);
}

std::string section(const char* title, const std::string& content) {
    return content.empty() ? "" : fmt::format("<section>\n<h2>{}</h2>\n{}</section>\n", title, content);
}

std::string folded(const char* summary, const std::string& content) {
    return fmt::format("<details><summary>{}</summary>\n{}</details>\n", summary, content);
}

std::string block(const std::string& text) {
    return "<pre>" + escaped(text) + "</pre>\n";
}

/// One number with its name; nothing without a number.
std::string figure(const char* name, const std::string& value) {
    return value.empty() ? "" : fmt::format("<div><b>{}</b><span>{}</span></div>\n", escaped(value), escaped(name));
}

std::string last_of(const ReportData& run, const char* metric) {
    const Curve* const curve = run.metric(metric);
    return curve && !curve->empty() ? number_text(curve->last().value) : "";
}

std::string count_of(const ReportData& run, const char* metric) {
    const Curve* const curve = run.metric(metric);
    return curve && !curve->empty() ? human_count(curve->last().value) : "";
}

std::string head(const ReportData& run) {
    std::string text = fmt::format("<header><h1>{}</h1><span class=\"state {}\">{}</span><span>{}</span></header>\n",
                                   escaped(run.name), escaped(run.state), escaped(run.state), escaped(run.state_text));
    std::string what = "stage " + run.stage;
    if (!run.finetuning.empty()) what += ", " + run.finetuning;
    if (!run.facts.model.empty()) what += "; " + run.facts.model;
    text += "<p class=\"faint\">" + escaped(what) + "</p>\n";
    if (run.total_steps > 0)
        text += fmt::format("<progress max=\"{}\" value=\"{}\"></progress>\n", run.total_steps, run.step);
    text += "<div class=\"figures\">\n";
    text += figure("step", run.total_steps > 0 ? fmt::format("{} of {}", run.step, run.total_steps) : count(run.step));
    if (run.seconds_left > 0) text += figure("left, about", human_duration(run.seconds_left));
    text += figure("loss", last_of(run, "loss")) + figure("eval_loss", last_of(run, "eval_loss"));
    if (run.best)
        text += figure(fmt::format("best {}, at step {:.0f}", run.best->metric, run.best->at.step).c_str(),
                       number_text(run.best->at.value));
    text += figure("tokens/s", count_of(run, "tokens_per_second")) + figure("tokens seen", count_of(run, "num_tokens"));
    if (run.warning_count > 0) text += figure("warnings", count(run.warning_count));
    return text + "</div>\n";
}

std::string curves(const ReportData& run) {
    if (!run.has_log) return "<p>report_to has no jsonl, so there is no log to draw curves from.</p>\n";
    std::string text;
    for (Chart& chart : metric_charts(run)) {
        const bool large = text.empty();
        if (large) chart.width = 1100, chart.height = 360, chart.spans *= 2;
        if (const std::string picture = svg_of(chart); !picture.empty())
            text += fmt::format("<div{}>{}</div>\n", large ? " class=\"large\"" : "", picture);
    }
    return text.empty() ? "<p>No step is logged yet.</p>\n" : "<div class=\"charts\">\n" + text + "</div>\n";
}

std::string samples(const ReportData& run) {
    std::string text;
    for (const SampleEntry& sample : run.samples) {
        text += "<div class=\"sample\"><h3>" + escaped(sample.row) + "</h3>\n" + block(sample.prompt) +
                "<div class=\"answers\">\n";
        const auto answer = [&](const std::string& title, const std::string& said) {
            text += "<div><span class=\"faint\">" + escaped(title) + "</span>" + block(said) + "</div>\n";
        };
        answer(fmt::format("at step {}", sample.first_step), sample.first);
        if (sample.last_step != sample.first_step) answer(fmt::format("at step {}", sample.last_step), sample.last);
        answer("reference", sample.reference);
        text += "</div></div>\n";
    }
    return text;
}

std::string split(const SplitFact& split) {
    std::string text = fmt::format("<h3>{}: {} samples from {} rows, {} tokens, {} of them trained on</h3>\n",
                                   escaped(split.name), split.samples, split.rows, split.tokens, split.learned);
    Rows files;
    for (const FileFact& file : split.files)
        files.push_back({file.path, file.type, count(file.rows), count(file.samples)});
    if (!files.empty()) text += html_table({"file", "read as", "rows", "samples"}, files, 2);
    Rows notes;
    for (const NoteFact& note : split.notes) notes.push_back({note.effect, note.label, count(note.rows), note.first});
    if (!notes.empty()) text += html_table({"rows", "because", "number", "first of them"}, notes);
    return text + svg_of(split.lengths, "tokens of a sample, " + split.name);
}

std::string data(const ReportData& run) {
    std::string text;
    for (const SplitFact& each : run.facts.splits) text += split(each);
    return text;
}

std::string packing(const ReportFacts& facts) {
    if (facts.packed_rows == 0) return "";
    std::string text = fmt::format("<p>{} rows of {} tokens in the first epoch, {:.1f} % full</p>\n", facts.packed_rows,
                                   facts.packing_length, 100 * facts.fill);
    for (const std::string& line : facts.sharing) text += "<p>" + escaped(line) + "</p>\n";
    if (facts.mask.classes.empty()) return text;
    return text +
           fmt::format(
               "<p>The mask of the first row, in tiles of {0} x {0} tokens:"
               "<span class=\"key full\"></span>all pairs visible<span class=\"key partial\"></span>some"
               "<span class=\"key none\"></span>none</p>\n",
               facts.mask.tile) +
           svg_of(facts.mask);
}

/// The greatest value of a curve of GiB.
std::string used(const ReportData& run, const char* metric) {
    const Curve* const curve = run.metric(metric);
    if (!curve || curve->empty()) return "";
    return human_bytes(static_cast<size_t>(curve->greatest().value * static_cast<double>(1 << 30)));
}

std::string memory(const ReportData& run) {
    Rows rows;
    for (const auto& [what, bytes] : run.facts.memory)
        rows.push_back({"planned: " + what, human_bytes(static_cast<size_t>(bytes))});
    if (run.facts.peak > 0) rows.push_back({"planned at the peak", human_bytes(static_cast<size_t>(run.facts.peak))});
    if (const std::string bytes = used(run, "gpu_memory_gib"); !bytes.empty())
        rows.push_back({"most in use on the GPU, by all programs", bytes});
    if (const std::string bytes = used(run, "host_memory_gib"); !bytes.empty())
        rows.push_back({"most in use by the process on the host", bytes});
    return rows.empty() ? "" : html_table({}, rows, 1);
}

std::string machine(const ReportData& run) {
    Rows rows;
    if (!run.facts.device.empty()) rows.push_back({"device", run.facts.device});
    if (!run.starts.empty()) {
        const StartEntry& last = run.starts.back();
        for (const auto& [name, value] : last.machine)
            if (name != "device" || run.facts.device.empty()) rows.push_back({name, value});
        rows.push_back({"ranks", count(last.ranks)});
        rows.push_back({"host", last.host});
    }
    return rows.empty() ? "" : html_table({}, rows);
}

std::string config(const ReportData& run) {
    Rows given, all;
    for (const ConfigEntry& entry : run.config) {
        if (entry.given) given.push_back({entry.key, entry.value, entry.default_value});
        all.push_back({entry.key, entry.value});
    }
    if (all.empty()) return "";
    return (given.empty() ? "" : html_table({"key that differs", "value", "default"}, given)) +
           folded("every key", html_table({}, all));
}

std::string metric_table(const ReportData& run) {
    Rows rows;
    for (const auto& [name, curve] : run.metrics) {
        const std::string lost = curve.not_finite() > 0 ? count(curve.not_finite()) : "";
        if (curve.empty()) {
            rows.push_back({name, "", "", "", "", "", lost});
            continue;
        }
        const auto point = [](const CurvePoint& at) {
            return fmt::format("{} (step {:.0f})", number_text(at.value), at.step);
        };
        rows.push_back({name, number_text(curve.first().value), number_text(curve.last().value), point(curve.least()),
                        point(curve.greatest()), count(curve.size()), lost});
    }
    if (rows.empty()) return "";
    return folded("first, last, least and greatest values",
                  html_table({"metric", "first", "last", "least", "greatest", "values", "not finite"}, rows, 1));
}

std::string warnings(const ReportData& run) {
    std::string text;
    if (run.warning_count > static_cast<int64_t>(run.warnings.size()))
        text += fmt::format("<p class=\"faint\">the last {} of {}</p>\n", run.warnings.size(), run.warning_count);
    for (const std::string& line : run.warnings) text += "<p class=\"warning\">" + escaped(line) + "</p>\n";
    Rows spikes;
    for (const SpikeEntry& spike : run.spikes)
        spikes.push_back({count(spike.step), number_text(spike.loss), number_text(spike.gradient_norm),
                          fmt::format("{}", fmt::join(spike.rows, ", "))});
    if (spikes.empty()) return text;
    return text + fmt::format("<h3>{} spikes</h3>\n", run.spike_count) +
           html_table({"step", "loss", "gradient norm", "rows"}, spikes);
}

std::string starts(const ReportData& run) {
    Rows rows;
    for (const StartEntry& start : run.starts)
        rows.push_back({start.started, start.ended, start.state + (start.reason.empty() ? "" : " " + start.reason),
                        fmt::format("{} to {}", start.resumed_step, start.step), start.program,
                        fmt::format("{}", fmt::join(start.changes, "\n")), start.command});
    return rows.empty()
               ? ""
               : html_table({"started", "ended", "state", "steps", "program", "config changed", "command"}, rows);
}

std::string files(const ReportData& run) {
    Rows rows;
    for (const std::string& checkpoint : run.checkpoints) rows.push_back({checkpoint + "/", ""});
    for (const auto& [name, size] : run.files) rows.push_back({name, size});
    return rows.empty() ? "" : "<p>" + escaped(run.folder) + "</p>\n" + html_table({}, rows, 1);
}

std::string side_by_side(const std::string& left, const std::string& right) {
    if (left.empty() || right.empty()) return left + right;
    return "<div class=\"side\"><div>" + left + "</div><div>" + right + "</div></div>\n";
}

}  // namespace

std::string report_page(const ReportData& run) {
    std::string body = head(run) + section("Curves", curves(run) + metric_table(run));
    body += section("Warnings", warnings(run)) + section("Answers", samples(run));
    body += side_by_side(section("Data", data(run)), section("Packing", packing(run.facts)));
    body += side_by_side(section("Memory", memory(run)), section("Machine", machine(run)));
    body += section("Config", config(run)) + section("Starts", starts(run)) + section("Folder", files(run));
    if (!run.facts.plan.empty()) body += section("Plan", folded("as the run printed it", block(run.facts.plan)));
    return html_page(run.name, body);
}

}  // namespace colonnade
