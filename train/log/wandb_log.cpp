#include "train/log/wandb_log.h"

#include <zlib.h>

#include <cmath>
#include <ctime>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "train/log/config_value.h"
#include "train/log/record_bytes.h"
#include "train/log/run_id.h"
#include "wandb_record.pb.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr size_t log_block = 32768, piece_header = 7;
constexpr std::string_view file_header = {":W&B\xe1\xbe\0", 7};

std::string new_path(const std::string& folder, const std::string& id) {
    const std::time_t time = std::time(nullptr);
    std::tm local{};
    localtime_r(&time, &local);
    char date[32];
    std::strftime(date, sizeof date, "%Y%m%d_%H%M%S", &local);
    std::string run = fmt::format("{}/offline-run-{}-{}", folder, date, id);
    for (int n = 1; path_exists(run); ++n) run = fmt::format("{}/offline-run-{}_{}-{}", folder, date, n, id);
    make_folders(run + "/files");
    return fmt::format("{}/run-{}.wandb", run, id);
}

template <typename Items>
void add(Items* items, const std::string& key, const std::string& json) {
    auto* const item = items->Add();
    item->add_nested_key(key);
    item->set_value_json(json);
}

}  // namespace

WandbLog::WandbLog(const std::string& output_dir, const RunDescription& run, std::optional<int64_t> resumed_step)
    : file_([&] {
          const std::string folder = output_dir + "/wandb";
          return new_path(folder, id_of_run(folder, 8, resumed_step.has_value()));
      }()),
      began_(now()),
      written_(file_header.size()) {
    file_.append(file_header);
    wandb::Record header;
    header.mutable_header()->mutable_version_info()->set_producer("0.31.0");
    header.mutable_header()->mutable_version_info()->set_min_consumer("0.70.0");
    put(header.SerializeAsString());

    wandb::Record record;
    wandb::Record::Run& each = *record.mutable_run();
    const std::string name = fs::path(file_.path()).stem();  // run-<id>
    each.set_run_id(name.substr(4));
    each.set_project(run.project);
    each.set_display_name(run.name);
    each.mutable_start_time()->set_seconds(static_cast<int64_t>(began_));
    if (resumed_step) each.set_resumed(true), each.set_starting_step(*resumed_step);
    for (const auto& [key, value] : run.config) {
        wandb::Item* const item = each.mutable_config()->add_update();
        item->set_key(key);
        item->set_value_json(json_of(config_value(value)));
    }
    record.set_num(++records_);
    put(record.SerializeAsString());
}

WandbLog::~WandbLog() {
    try {
        wandb::Record record;
        record.set_num(++records_);
        record.mutable_exit()->set_exit_code(std::uncaught_exceptions() > 0 ? 1 : 0);
        record.mutable_exit()->set_runtime(static_cast<int32_t>(now() - began_));
        put(record.SerializeAsString());
    } catch (const Error&) {  // a log without an end is uploaded, too
    }
}

void WandbLog::write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
    Values values;
    for (const auto& [tag, value] : scalars)
        values.emplace_back(tag, std::isfinite(value) ? Json(value).dump()
                                 : std::isnan(value)  ? "\"NaN\""
                                                      : (value > 0 ? "\"Infinity\"" : "\"-Infinity\""));
    write_values(step, values);
}

void WandbLog::write_text(int64_t step, const std::string& tag, const std::string& text) {
    write_values(step, {{tag, Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)}});
}

void WandbLog::write_values(int64_t step, const Values& values) {
    wandb::Record history, summary;
    const double time = now();
    history.mutable_history()->mutable_step()->set_num(step);
    auto* const items = history.mutable_history()->mutable_item();
    auto* const latest = summary.mutable_summary()->mutable_update();
    for (const auto& [tag, json] : values) {
        add(items, tag, json);
        add(latest, tag, json);
    }
    add(items, "_step", std::to_string(step));
    add(items, "_timestamp", Json(time).dump());
    add(items, "_runtime", Json(time - began_).dump());
    for (wandb::Record* record : {&history, &summary}) {
        record->set_num(++records_);
        put(record->SerializeAsString());
    }
}

void WandbLog::put(const std::string& record) {
    std::string_view left = record;
    std::string bytes;
    bool first = true;
    do {
        size_t room = log_block - (written_ + bytes.size()) % log_block;
        if (room < piece_header) {
            bytes.append(room, '\0');
            room = log_block;
        }
        const std::string_view piece = left.substr(0, room - piece_header);
        left.remove_prefix(piece.size());
        const char type = static_cast<char>(first ? (left.empty() ? 1 : 2) : (left.empty() ? 4 : 3));
        first = false;
        const std::string typed = type + std::string(piece);
        const auto crc = static_cast<uint32_t>(
            crc32(0, reinterpret_cast<const Bytef*>(typed.data()), static_cast<uInt>(typed.size())));
        bytes += little_endian(crc) + little_endian(static_cast<uint16_t>(piece.size())) + typed;
    } while (!left.empty());
    file_.append(bytes);
    written_ += bytes.size();
}

}  // namespace colonnade
