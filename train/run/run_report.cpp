#include "train/run/run_report.h"

#include <fmt/ranges.h>

#include <filesystem>

#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "engine/io/replace_file.h"
#include "train/config/keys.h"
#include "train/config/spellings.h"
#include "train/folders/run_checkpoints.h"
#include "train/report/report_page.h"
#include "train/run/describe_run.h"
#include "train/run/run_record.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_files = 100;

Config config_of(const std::string& output_dir) {
    const std::string path = output_dir + "/config.yaml";
    if (!path_exists(path))
        fail(Exit::data, "{}: holds no run: expected a config.yaml, as `train` writes it to its output_dir",
             output_dir);
    return parse_config(read_file(path), path).config;
}

BestRules best_rules_of(const Config& c) {
    if (!c.metric_for_best_model.empty())
        return {.metric = c.metric_for_best_model, .greater_is_better = c.greater_is_better == Tristate::on};
    return {.metric = "eval_loss"};
}

std::vector<ConfigEntry> entries_of(const Config& c, const std::vector<std::string>& given) {
    const std::set<std::string> keys(given.begin(), given.end());
    std::vector<ConfigEntry> entries;
    for (const KeyValue& each : key_values(c)) {
        const auto first = keys.lower_bound(each.key);  // the key, or one of the keys in its value
        const bool named = first != keys.end() && first->substr(0, first->find_first_of(".[")) == each.key;
        const bool differs = each.value != each.default_value;
        entries.push_back(
            {each.key, each.value, each.default_value, differs && (named || (given.empty() && each.fixed_default))});
    }
    return entries;
}

std::vector<std::string> texts_in(const Json& object, const char* key) {
    std::vector<std::string> texts;
    if (const auto found = object.find(key); found != object.end() && found->is_array())
        for (const Json& each : *found)
            if (each.is_string()) texts.push_back(each.get<std::string>());
    return texts;
}

/// The starts that run.json remembers.
void read_starts(const std::string& output_dir, ReportData& data) {
    const std::string path = output_dir + "/run.json";
    if (!path_exists(path)) return;
    const Json record = read_json_file(path);
    const auto starts = record.is_object() ? record.find("starts") : record.end();
    if (starts == record.end() || !starts->is_array()) fail(Exit::data, "{}: key 'starts' is missing", path);
    for (const Json& each : *starts) {
        if (!each.is_object()) continue;
        StartEntry start{.started = text_in(each, "started"),
                         .ended = text_in(each, "ended"),
                         .state = text_in(each, "state"),
                         .reason = text_in(each, "reason"),
                         .command = fmt::format("{}", fmt::join(texts_in(each, "command"), " ")),
                         .program = text_in(each, "program"),
                         .host = text_in(each, "host"),
                         .step = number_in(each, "step"),
                         .resumed_step = number_in(each, "resumed_step"),
                         .ranks = std::max<int64_t>(1, number_in(each, "ranks")),
                         .changes = texts_in(each, "changes")};
        if (const auto machine = each.find("machine"); machine != each.end() && machine->is_object())
            for (const auto& [name, value] : machine->items())
                if (value.is_string()) start.machine.emplace_back(name, value.get<std::string>());
        data.total_steps = number_in(each, "total_steps");
        data.step = start.step;
        data.starts.push_back(std::move(start));
    }
    if (data.starts.empty()) return;
    data.state_text = state_of_run(output_dir);
    data.state = data.state_text.starts_with("killed") ? "killed" : data.starts.back().state;
}

/// What the folder holds, but for temporary files and the report itself.
void read_names(const std::string& output_dir, ReportData& data) {
    for (const int64_t step : checkpoint_steps(output_dir))
        data.checkpoints.push_back(fs::path(checkpoint_folder(output_dir, step)).filename());
    for (const std::string& name : names_in(output_dir)) {
        if (data.files.size() == most_files) break;
        const std::string path = output_dir + "/" + name;
        if (name.starts_with(".") || name.find(".tmp-") != name.npos || name == "report.html" || !is_file(path))
            continue;
        std::error_code error;
        const uintmax_t bytes = fs::file_size(path, error);
        data.files.emplace_back(name, error ? "" : human_bytes(bytes));
    }
}

/// By the last step's duration.
double seconds_left(const ReportData& data) {
    const Curve* const seconds = data.metric("step_seconds");
    if (data.state != "running" || !seconds || seconds->empty()) return 0;
    return seconds->last().value * static_cast<double>(std::max<int64_t>(0, data.total_steps - data.step));
}

}  // namespace

RunReport::RunReport(std::string output_dir) : output_dir_(std::move(output_dir)), history_(output_dir_, {}) {
    const Config config = config_of(output_dir_);
    history_ = RunHistory(output_dir_, best_rules_of(config));
    facts_ = read_facts(output_dir_);
    entries_ = entries_of(config, facts_.given);
    name_ = name_of_run(config);
    stage_ = spell(config.stage);
    finetuning_ = spell(config.finetuning_type);
}

ReportData RunReport::read() {
    ReportData data{.folder = output_dir_, .name = name_, .stage = stage_, .finetuning = finetuning_};
    data.facts = facts_;
    data.config = entries_;
    read_starts(output_dir_, data);
    history_.read_more();
    history_.put_into(data);
    read_names(output_dir_, data);
    data.seconds_left = seconds_left(data);
    return data;
}

std::string RunReport::write() {
    const std::string path = output_dir_ + "/report.html";
    replace_file(path, report_page(read()));
    return path;
}

}  // namespace colonnade
