#include "train/log/metrics_log.h"

#include <cmath>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/json.h"

namespace colonnade {
namespace {

constexpr size_t longest_log = size_t{1} << 31;

double number(const Metric& metric) {
    return std::visit([](auto value) { return static_cast<double>(value); }, metric.second);
}

std::string tensorboard_tag(const std::string& name) {
    return name.starts_with("eval_") ? "eval/" + name.substr(5) : "train/" + name;
}

/// The step of a log line; nothing if it is not a log line.
std::optional<int64_t> step_of(const Json& json) {
    if (!json.is_object()) return {};
    const auto step = json.find("step");
    if (step == json.end() || !step->is_number_integer()) return {};
    return step->get<int64_t>();
}

AppendFile open_log(const std::string& output_dir, std::optional<int64_t> resumed_step) {
    make_folders(output_dir);
    const std::string path = output_dir + "/metrics.jsonl";
    if (std::filesystem::exists(path)) {
        const std::string old = resumed_step ? read_file(path, longest_log) : "";
        write_file_atomically(path, resumed_step ? log_until(old, *resumed_step) : "");
    }
    return AppendFile(path);
}

}  // namespace

MetricsLog::MetricsLog(const std::string& output_dir, LogFiles files, std::optional<int64_t> resumed_step,
                       const RunDescription& run) {
    if (files.jsonl) jsonl_ = open_log(output_dir, resumed_step);
    if (files.tensorboard) tensorboard_.emplace(output_dir + "/runs", resumed_step).describe(run);
    if (files.csv) csv_.emplace(output_dir + "/metrics.csv", resumed_step);
    if (files.wandb) wandb_.emplace(output_dir, run, resumed_step);
}

void MetricsLog::write(int64_t step, double epoch, const std::vector<Metric>& metrics,
                       const std::vector<std::string>& rows) {
    if (jsonl_) jsonl_->append(metrics_line(step, epoch, metrics, rows) + '\n');
    std::vector<std::pair<std::string, double>> numbers = {{"epoch", epoch}};
    for (const Metric& metric : metrics) numbers.emplace_back(metric.first, number(metric));
    if (csv_) csv_->write(step, numbers);
    for (auto& [name, value] : numbers) name = tensorboard_tag(name);
    if (tensorboard_) tensorboard_->write(step, numbers);
    if (wandb_) wandb_->write(step, numbers);
}

std::string metrics_line(int64_t step, double epoch, const std::vector<Metric>& metrics,
                         const std::vector<std::string>& rows) {
    Json line = {{"step", step}, {"epoch", epoch}};
    Json non_finite = Json::object();
    for (const Metric& metric : metrics) {
        std::visit([&](auto value) { line[metric.first] = value; }, metric.second);
        const double value = number(metric);
        if (std::isnan(value)) non_finite[metric.first] = "nan";
        if (std::isinf(value)) non_finite[metric.first] = value > 0 ? "inf" : "-inf";
    }
    if (!non_finite.empty()) line["non_finite"] = non_finite;
    if (!rows.empty()) line["rows"] = rows;
    // Writes NaN and infinity as null, and bytes of a path that are not UTF-8 as U+FFFD.
    return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string_view log_until(std::string_view jsonl, int64_t step) {
    size_t end = 0;
    while (true) {
        const size_t line_end = jsonl.find('\n', end);
        if (line_end == std::string_view::npos) break;
        const std::optional<int64_t> line_step =
            step_of(Json::parse(jsonl.substr(end, line_end - end), nullptr, /*allow_exceptions=*/false));
        if (!line_step || *line_step > step) break;
        end = line_end + 1;
    }
    return jsonl.substr(0, end);
}

Series read_series(const std::string& metrics_path, const std::string& key) {
    const std::string text = read_file(metrics_path, longest_log);
    Series series{.name = key, .steps = {}, .values = {}};
    int64_t line = 0;
    // A last line without a line break is incomplete: the run is writing it, or was killed meanwhile.
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const std::string where = fmt::format("{}:{}", metrics_path, ++line);
        const Json json = parse_json(std::string_view(text).substr(begin, end - begin), where);
        const std::optional<int64_t> step = step_of(json);
        if (!step) fail(Exit::data, "{}: key 'step' is missing", where);
        if (const auto value = json.find(key); value != json.end() && value->is_number()) {
            series.steps.push_back(static_cast<double>(*step));
            series.values.push_back(value->get<double>());
        }
    }
    return series;
}

}  // namespace colonnade
