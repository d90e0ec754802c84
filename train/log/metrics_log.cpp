#include "train/log/metrics_log.h"

#include <cmath>
#include <utility>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "train/log/log_lines.h"

namespace colonnade {
namespace {

constexpr size_t most_points = limits::curve_points;

/// Adds a point. When there are too many, every second one is dropped.
class CurvePoints {
  public:
    explicit CurvePoints(Series& series) : series_(series) {}
    void add(double step, double value) {
        if (count_++ % stride_ != 0) return;
        if (series_.steps.size() == most_points) {
            thin(series_.steps);
            thin(series_.values);
            stride_ *= 2;
        }
        series_.steps.push_back(step);
        series_.values.push_back(value);
    }

  private:
    static void thin(std::vector<double>& points) {
        for (size_t i = 0; 2 * i < points.size(); ++i) points[i] = points[2 * i];
        points.resize((points.size() + 1) / 2);
    }
    Series& series_;
    size_t count_ = 0, stride_ = 1;
};

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

/// Replaces a file by its first bytes, durably.
void keep_beginning(const std::string& path, uint64_t bytes) {
    FileCommit commit(path);
    {
        InputFile from(path);
        OutputFile to(commit.temporary());
        std::string block;
        for (uint64_t left = bytes; left > 0; left -= block.size()) {
            block.resize(std::min<uint64_t>(left, limits::mib));
            block.resize(from.read(block.data(), block.size()));
            if (block.empty()) break;
            to.write(block);
        }
        to.close();
    }
    commit.commit();
}

/// As Markdown shows it unchanged, whatever it contains.
std::string code_block(const std::string& text) {
    std::string block = "\n";
    for (size_t begin = 0, end = 0; end != text.npos; begin = end + 1) {
        end = text.find('\n', begin);
        block += "    " + text.substr(begin, end == text.npos ? end : end - begin) + "\n";
    }
    return block;
}

AppendFile open_log(const std::string& output_dir, std::optional<int64_t> resumed_step) {
    make_folders(output_dir);
    const std::string path = output_dir + "/metrics.jsonl";
    if (path_exists(path)) keep_beginning(path, resumed_step ? log_bytes_until(path, *resumed_step) : 0);
    return AppendFile(path);
}

}  // namespace

MetricsLog::MetricsLog(const std::string& output_dir, LogFiles files, std::optional<int64_t> resumed_step,
                       const RunDescription& run) {
    if (files.jsonl) jsonl_ = open_log(output_dir, resumed_step);
    if (files.tensorboard) tensorboard_.emplace(output_dir + "/runs", resumed_step).describe(run);
    if (files.csv) csv_.emplace(output_dir + "/metrics.csv", resumed_step);
    if (files.wandb) wandb_.emplace(output_dir, run, resumed_step);
    if (files.trackio) trackio_.emplace(output_dir, run, resumed_step);
    if (files.mlflow) mlflow_.emplace(output_dir, run, resumed_step);
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
    if (mlflow_) mlflow_->write(step, numbers);
    if (!trackio_) return;
    try {
        trackio_->write(step, numbers);
    } catch (const Error& e) {
        trouble_ = fmt::format("trackio: {}; the run goes on without it", e.what());
        trackio_.reset();
    }
}

std::string MetricsLog::take_trouble() {
    std::string trouble = mlflow_ ? mlflow_->take_trouble() : "";
    return trouble.empty() ? std::exchange(trouble_, "") : trouble;
}

void MetricsLog::write_samples(int64_t step, double epoch, const std::vector<SampleAnswer>& samples) {
    Json list = Json::array();
    std::string markdown;
    for (const SampleAnswer& s : samples) {
        list.push_back({{"row", s.row}, {"prompt", s.prompt}, {"answer", s.answer}, {"reference", s.reference}});
        markdown += fmt::format("**{}**\n\n", s.row);
        for (const auto& [title, text] :
             {std::pair("prompt", s.prompt), std::pair("answer", s.answer), std::pair("reference", s.reference)})
            markdown += fmt::format("{}\n{}\n", title, code_block(text));
    }
    const Json line = {{"step", step}, {"epoch", epoch}, {"samples", list}};
    if (jsonl_) jsonl_->append(line.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
    if (tensorboard_) tensorboard_->write_text(step, "eval/samples", markdown);
    if (wandb_) wandb_->write_text(step, "eval/samples", markdown);
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

uint64_t log_bytes_until(const std::string& path, int64_t step) {
    LogLines lines(path);
    uint64_t end = 0;
    for (std::string_view line; lines.next(line); end = lines.passed()) {
        const std::optional<int64_t> line_step = step_of(Json::parse(line, nullptr, /*allow_exceptions=*/false));
        if (!line_step || *line_step > step) break;
    }
    return end;
}

Series read_series(const std::string& metrics_path, const std::string& key) {
    Series series{.name = key, .steps = {}, .values = {}};
    CurvePoints points(series);
    LogLines lines(metrics_path);
    int64_t number = 0;
    for (std::string_view line; lines.next(line);) {
        const std::string where = fmt::format("{}:{}", metrics_path, ++number);
        const Json json = parse_json(line, where);
        const std::optional<int64_t> step = step_of(json);
        if (!step) fail(Exit::data, "{}: key 'step' is missing", where);
        if (const auto value = json.find(key); value != json.end() && value->is_number())
            points.add(static_cast<double>(*step), value->get<double>());
    }
    return series;
}

}  // namespace colonnade
