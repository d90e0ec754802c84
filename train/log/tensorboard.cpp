#include "train/log/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "tensorboard_event.pb.h"
#include "train/log/config_value.h"
#include "train/log/record_bytes.h"

namespace colonnade {
namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
    constexpr uint32_t reversed_polynomial = 0x82f63b78;
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? reversed_polynomial : 0);
        table[byte] = crc;
    }
    return table;
}();

uint32_t masked_crc(std::string_view bytes) {
    return std::rotr(crc32c(bytes), 15) + 0xa282ead8;
}

std::string new_path(const std::string& folder) {
    make_folders(folder);
    char host[256] = {};
    if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
    const std::string name = fmt::format("{}/events.out.tfevents.{:010}.{}.{}", folder, static_cast<int64_t>(now()),
                                         *host ? host : "localhost", getpid());
    std::string path = name;
    for (int n = 1; path_exists(path); ++n) path = fmt::format("{}.{}", name, n);
    return path;
}

std::string record(const events::Event& event) {
    return event_record(event.SerializeAsString());
}

events::Event event_at(int64_t step) {
    events::Event event;
    event.set_wall_time(now());
    event.set_step(step);
    return event;
}

void add_text(events::Summary& summary, const std::string& title, const std::string& markdown) {
    events::Summary::Value& value = *summary.add_value();
    value.set_tag(title + "/text_summary");
    value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("text");
    value.mutable_tensor()->set_dtype(events::Tensor::STRING);
    value.mutable_tensor()->mutable_tensor_shape()->add_dim()->set_size(1);
    value.mutable_tensor()->add_string_val(markdown);
}

void add_hparams(events::Summary& summary, const RunDescription& run) {
    events::Hparams content;
    content.set_version(0);
    events::Hparams::SessionStart& start = *content.mutable_session_start_info();
    start.set_group_name(run.name);
    start.set_start_time_secs(now());
    for (const auto& [key, yaml] : run.config) {
        events::Hparams::Value& each = (*start.mutable_hparams())[key];
        const ConfigValue value = config_value(yaml);
        if (const bool* const flag = std::get_if<bool>(&value))
            each.set_bool_value(*flag);
        else if (const double* const number = std::get_if<double>(&value))
            each.set_number_value(*number);
        else
            each.set_string_value(std::get<std::string>(value));
    }
    events::Summary::Value& value = *summary.add_value();
    value.set_tag("_hparams_/session_start_info");
    value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("hparams");
    value.mutable_metadata()->mutable_plugin_data()->set_content(content.SerializeAsString());
    value.mutable_tensor()->set_dtype(events::Tensor::FLOAT);
    value.mutable_tensor()->mutable_tensor_shape();
    value.mutable_tensor()->add_float_val(0);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
    uint32_t crc = ~0u;
    for (const char byte : bytes) crc = crc_table[(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ (crc >> 8);
    return ~crc;
}

std::string event_record(std::string_view bytes) {
    const std::string length = little_endian(static_cast<uint64_t>(bytes.size()));
    return length + little_endian(masked_crc(length)) + std::string(bytes) + little_endian(masked_crc(bytes));
}

EventWriter::EventWriter(const std::string& folder, std::optional<int64_t> resumed_step) : file_(new_path(folder)) {
    events::Event version = event_at(0);
    version.set_file_version("brain.Event:2");
    file_.append(record(version));
    if (!resumed_step) return;
    events::Event start = event_at(*resumed_step + 1);
    start.mutable_session_log()->set_status(events::SessionLog::START);
    file_.append(record(start));
}

void EventWriter::describe(const RunDescription& run) {
    events::Event event = event_at(0);
    for (const auto& [title, markdown] : run.texts) add_text(*event.mutable_summary(), title, markdown);
    add_hparams(*event.mutable_summary(), run);
    file_.append(record(event));
}

void EventWriter::write_text(int64_t step, const std::string& title, const std::string& markdown) {
    events::Event event = event_at(step);
    add_text(*event.mutable_summary(), title, markdown);
    file_.append(record(event));
}

void EventWriter::write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
    events::Event event = event_at(step);
    for (const auto& [tag, value] : scalars) {
        events::Summary::Value* each = event.mutable_summary()->add_value();
        each->set_tag(tag);
        each->set_simple_value(static_cast<float>(value));
    }
    file_.append(record(event));
}

}  // namespace colonnade
