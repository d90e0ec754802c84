#include "train/run/run_record.h"

#include <fmt/chrono.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/io/files.h"
#include "engine/io/replace_file.h"

namespace colonnade {
namespace {

constexpr const char* record_format = "colonnade-run";
constexpr size_t most_starts = 1000;

std::string utc_now() {
    return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

std::string host_name() {
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    return host.data();
}

/// Clock ticks from the start of the system to that of a process; 0 if there is no such process.
int64_t start_of_process(int64_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string text;
    std::getline(file, text);
    const size_t name_end = text.rfind(')');  // the name may hold spaces
    if (name_end == text.npos) return 0;
    std::istringstream fields(text.substr(name_end + 1));
    std::string field;
    for (int i = 3; i < 22; ++i) fields >> field;
    int64_t start = 0;
    fields >> start;
    return start;
}

std::string record_path(const std::string& output_dir) {
    return output_dir + "/run.json";
}

/// The record of a folder; null if there is none that can be read.
Json read_record(const std::string& output_dir) {
    try {
        const std::string path = record_path(output_dir);
        if (!path_exists(path)) return nullptr;
        Json record = read_json_file(path);
        const bool ours = record.is_object() && record.value("format", Json()) == record_format &&
                          record.contains("starts") && record["starts"].is_array();
        return ours ? record : nullptr;
    } catch (const Error&) {
        return nullptr;
    }
}

/// "2026-11-29T15:22:14Z" as "2026-11-29 15:22 UTC".
std::string readable(const std::string& date) {
    return date.size() == 20 ? fmt::format("{} {} UTC", date.substr(0, 10), date.substr(11, 5)) : "an unknown date";
}

}  // namespace

std::vector<std::string> command_line() {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    std::vector<std::string> arguments;
    for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
    return arguments;
}

RunRecord::RunRecord(std::string output_dir, bool anew) : output_dir_(std::move(output_dir)) {
    record_ = anew ? Json() : read_record(output_dir_);
    if (record_.is_null()) record_ = {{"format", record_format}, {"starts", Json::array()}};
    Json& starts = record_["starts"];
    if (starts.size() >= most_starts) starts.erase(starts.begin(), starts.end() - (most_starts - 1));
    std::error_code error;
    const Json start = {{"started", utc_now()},
                        {"ended", nullptr},
                        {"state", "running"},
                        {"reason", ""},
                        {"step", 0},
                        {"command", command_line()},
                        {"folder", std::filesystem::current_path(error).string()},
                        {"host", host_name()},
                        {"pid", ::getpid()},
                        {"process_started", start_of_process(::getpid())}};
    starts.push_back(start);
    write();
    const std::string log = output_dir_ + "/train.log";
    if (anew) remove_file(log);
    log_.emplace(log);
    print(fmt::format("=== {}: {}\n", text_in(start, "started"), fmt::join(command_line(), " ")));
}

void RunRecord::begin(const RunStart& start) {
    Json& entry = record_["starts"].back();
    entry["step"] = start.resumed_step;
    entry["resumed_step"] = start.resumed_step;
    entry["total_steps"] = start.total_steps;
    entry["program"] = start.program;
    entry["ranks"] = start.ranks;
    entry["machine"] = Json::object();
    for (const auto& [name, value] : start.machine) entry["machine"][name] = value;
    entry["changes"] = start.changes;
    write();
}

void RunRecord::print(std::string_view text) {
    if (!log_) return;
    try {
        log_->append(text);
    } catch (const Error& e) {
        log_.reset();
        fmt::print(stderr, "warning: {}; the log of what is printed ends here\n", e.what());
    }
}

void RunRecord::end(const RunEnd& end) {
    if (!written_) return;  // that error ended the run
    try {
        Json& entry = record_["starts"].back();
        entry["state"] = end.state;
        entry["reason"] = end.reason;
        entry["step"] = end.step;
        entry["ended"] = utc_now();
        write();
    } catch (const std::exception& e) {
        fmt::print(stderr, "warning: {}; {} still says that the run goes on\n", e.what(), record_path(output_dir_));
    }
}

/// Replaces the file at once, but without fsync: after an error of the disk another one would tell nothing.
void RunRecord::write() {
    written_ = false;
    replace_file(record_path(output_dir_), record_.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
    written_ = true;
}

std::string state_of_run(const std::string& output_dir) {
    const Json record = read_record(output_dir);
    if (record.is_null() || record["starts"].empty() || !record["starts"].back().is_object()) return "";
    const Json& start = record["starts"].back();
    const std::string state = text_in(start, "state"), reason = text_in(start, "reason"), host = text_in(start, "host");
    const int64_t pid = number_in(start, "pid"), step = number_in(start, "step");
    if (state != "running")
        return fmt::format("{}{}{} after step {}, {}", state, reason.empty() ? "" : " ", reason, step,
                           readable(text_in(start, "ended")));
    const std::string started = readable(text_in(start, "started"));
    if (host != host_name()) return fmt::format("running as process {} on {} since {}, or killed", pid, host, started);
    if (start_of_process(pid) == number_in(start, "process_started"))
        return fmt::format("running as process {} since {}", pid, started);
    return fmt::format("killed: process {}, which started it on {}, is gone", pid, started);
}

}  // namespace colonnade
