#include "train/log/trackio_log.h"

#include <fmt/chrono.h>

#include <cmath>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/home_path.h"
#include "engine/io/json.h"
#include "engine/io/replace_file.h"
#include "train/log/config_value.h"
#include "train/log/record_bytes.h"
#include "train/log/run_id.h"

namespace colonnade {
namespace {

constexpr double most_seconds = 5;              ///< that a record waits
constexpr size_t most_bytes = size_t{1} << 20;  ///< that wait

std::string timestamp() {
    const double time = now();
    const double whole = std::floor(time);
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}+00:00", fmt::gmtime(static_cast<std::time_t>(whole)),
                       static_cast<int>((time - whole) * 1e6));
}

std::string text_of(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string trackio_folder() {
    if (const std::string folder = environment("TRACKIO_DIR"); !folder.empty()) return folder;
    if (const std::string home = environment("HF_HOME"); !home.empty()) return home + "/trackio";
    const std::string cache = environment("XDG_CACHE_HOME");
    return (cache.empty() ? environment("HOME") + "/.cache" : cache) + "/huggingface/trackio";
}

TrackioLog::TrackioLog(const std::string& output_dir, const RunDescription& run, std::optional<int64_t> resumed_step)
    : project_(run.project),
      name_(run.name),
      id_(id_of_run(output_dir + "/trackio", 32, resumed_step.has_value())),
      writer_(random_id(16)),
      folder_(trackio_folder() + "/inbox/" + writer_) {
    Json config = Json::object();
    for (const auto& [key, value] : run.config)
        std::visit([&, &name = key](const auto& v) { config[name] = v; }, config_value(value));
    config_ = text_of(config);
    make_folders(folder_);
}

TrackioLog::~TrackioLog() {
    try {
        flush();
    } catch (const std::exception& e) {
        fmt::print(stderr, "warning: {}; the last records are not in Trackio\n", e.what());
    }
}

void TrackioLog::write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
    Json metrics = Json::object();
    for (const auto& [name, value] : scalars) {
        if (std::isfinite(value))
            metrics[name] = value;
        else
            metrics[name] = std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    }
    Json record = {{"v", 1},
                   {"kind", "metric"},
                   {"project", project_},
                   {"run", name_},
                   {"run_id", id_},
                   {"metrics", metrics},
                   {"step", step},
                   {"timestamp", timestamp()},
                   {"config", nullptr},
                   {"log_id", fmt::format("{}-{}", writer_, records_)}};
    if (records_++ == 0) record["config"] = parse_json(config_, "config");
    waiting_ += text_of(record) + "\n";
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - flushed_).count();
    if (files_ == 0 || seconds >= most_seconds || waiting_.size() >= most_bytes) flush();
}

void TrackioLog::flush() {
    if (waiting_.empty()) return;
    make_folders(folder_);                                  // the dashboard removes it when it is empty
    const std::string lines = std::exchange(waiting_, "");  // a second try would fail as well
    replace_file(fmt::format("{}/{:08}.jsonl", folder_, files_++), lines);
    flushed_ = std::chrono::steady_clock::now();
}

}  // namespace colonnade
