#include "train/report/run_history.h"

#include <algorithm>

#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

/// The beginning of a long text.
std::string bounded(const Json& record, const char* key) {
    const auto found = record.find(key);
    if (found == record.end() || !found->is_string()) return "";
    std::string text = found->get<std::string>();
    if (text.size() <= RunHistory::most_text_bytes) return text;
    text.resize(RunHistory::most_text_bytes);
    text.resize(well_formed_prefix(text));
    return text + " ...";
}

/// The value of a metric; NaN for null, which stands for a value that is not finite.
double number_of(const Json& value) {
    return value.is_number() ? value.get<double>() : NAN;
}

}  // namespace

void RunHistory::read_more() {
    const auto open = [](std::optional<LogLines>& log, const std::string& path) {
        if (!log && path_exists(path)) log.emplace(path);
        return log.has_value();
    };
    std::string_view line;
    if (const std::string path = output_dir_ + "/metrics.jsonl"; open(metrics_log_, path))
        while (metrics_log_->next(line)) {
            const std::string where = fmt::format("{}:{}", path, ++lines_);
            add_record(parse_json(line, where), where);
        }
    if (open(train_log_, output_dir_ + "/train.log"))
        while (train_log_->next(line)) add_message(line);
}

Curve* RunHistory::curve(const std::string& metric) {
    const auto [found, fresh] = index_.emplace(metric, curves_.size());
    if (fresh && curves_.size() == most_metrics) {
        index_.erase(found);
        return nullptr;
    }
    if (fresh) curves_.emplace_back(metric, Curve());
    return &curves_[found->second].second;
}

void RunHistory::add_record(const Json& record, const std::string& where) {
    const auto step_key = record.is_object() ? record.find("step") : record.end();
    if (step_key == record.end() || !step_key->is_number_integer())
        fail(Exit::data, "{}: key 'step' is missing", where);
    const auto step = step_key->get<int64_t>();
    step_ = std::max(step_, step);
    for (const auto& [name, value] : record.items()) {
        if (name == "step" || name == "epoch" || !(value.is_number() || value.is_null())) continue;
        const double number = number_of(value);
        if (Curve* const known = curve(name)) known->add(static_cast<double>(step), number);
        if (step > 0 && name == best_.rules().metric) best_.add(step, number);
    }
    if (const auto samples = record.find("samples"); samples != record.end() && samples->is_array())
        add_samples(*samples, step);
    if (!record.contains("spike_loss") || ++spike_count_ > static_cast<int64_t>(most_spikes)) return;
    SpikeEntry spike{.step = step,
                     .loss = number_of(record["spike_loss"]),
                     .gradient_norm = number_of(record.value("spike_grad_norm", Json()))};
    if (const auto rows = record.find("rows"); rows != record.end() && rows->is_array())
        for (const Json& row : *rows)
            if (row.is_string() && spike.rows.size() < 10) spike.rows.push_back(row.get<std::string>());
    spikes_.push_back(std::move(spike));
}

void RunHistory::add_samples(const Json& samples, int64_t step) {
    for (const Json& sample : samples) {
        if (!sample.is_object()) continue;
        const std::string row = bounded(sample, "row"), answer = bounded(sample, "answer");
        const auto known = std::ranges::find(samples_, row, &SampleEntry::row);
        if (known != samples_.end()) {
            known->last = answer;
            known->last_step = step;
        } else if (samples_.size() < most_samples) {
            samples_.push_back({.row = row,
                                .prompt = bounded(sample, "prompt"),
                                .reference = bounded(sample, "reference"),
                                .first = answer,
                                .last = answer,
                                .first_step = step,
                                .last_step = step});
        }
    }
}

void RunHistory::add_message(std::string_view line) {
    if (!line.starts_with("warning: ") && !line.starts_with("error: ")) return;
    ++warning_count_;
    if (warnings_.size() == most_warnings) warnings_.erase(warnings_.begin());
    warnings_.emplace_back(line.substr(0, most_text_bytes));
}

void RunHistory::put_into(ReportData& data) const {
    data.metrics = curves_;
    data.has_log = metrics_log_.has_value();
    data.step = std::max(data.step, step_);
    data.samples = samples_;
    data.spikes = spikes_;
    data.spike_count = spike_count_;
    data.warnings = warnings_;
    data.warning_count = warning_count_;
    if (const BestRecord& best = best_.record(); best.step > 0)
        data.best = BestEntry{best_.rules().metric, {static_cast<double>(best.step), best.value}};
}

}  // namespace colonnade
