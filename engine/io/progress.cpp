#include "engine/io/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <tuple>

#include "engine/device/human_units.h"

namespace colonnade {
namespace {

constexpr double terminal_interval = 0.1, plain_interval = 10.0;  // seconds between drawings
constexpr size_t bar_width = 20;

double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void write_stderr(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
}

size_t terminal_columns() {
    winsize size{};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// Cuts the line to at most `columns` bytes, never inside a UTF-8 character.
void cut(std::string& line, size_t columns) {
    if (line.size() <= columns) return;
    while (columns > 0 && (static_cast<unsigned char>(line[columns]) & 0xC0) == 0x80) --columns;
    line.resize(columns);
}

std::string amount(double value, const std::string& unit) {
    return unit == "B" ? human_bytes(static_cast<size_t>(value)) : fmt::format("{:.0f}", value);
}

std::string rate_text(double rate, const std::string& unit) {
    if (unit == "B") return human_bytes(static_cast<size_t>(rate)) + "/s";
    if (rate >= 1000) return fmt::format("{} {}/s", human_count(rate), unit);
    if (rate >= 1) return fmt::format("{:.2f} {}/s", rate, unit);
    // Slow work is easier to read the other way round: 12.0 s per step.
    const bool plural = unit.size() > 1 && unit.back() == 's';
    return fmt::format("{} per {}", human_duration(1 / rate), plural ? unit.substr(0, unit.size() - 1) : unit);
}

}  // namespace

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
    if (!options_.clock) options_.clock = steady_seconds;
    if (!options_.write) options_.write = write_stderr;
    terminal_ = options_.terminal.value_or(isatty(STDERR_FILENO) == 1);
    done_ = options_.initial;
    start_ = options_.clock();
    draw();
}

Progress::~Progress() {
    if (line_open_) options_.write("\n");
}

void Progress::update(double done) {
    done_ = done;
    if (options_.clock() - drawn_at_ >= (terminal_ ? terminal_interval : plain_interval)) draw();
}

void Progress::print(std::string_view line) {
    const bool redraw = line_open_;
    options_.write(fmt::format("{}{}\n", redraw ? "\r\x1b[K" : "", line));
    line_open_ = false;
    if (redraw) draw();
}

void Progress::finish() {
    if (finished_) return;
    draw();
    if (line_open_) options_.write("\n");
    line_open_ = false;
    finished_ = true;
}

std::string Progress::text(size_t bar) const {
    const auto& [label, total, initial, unit] =
        std::tie(options_.label, options_.total, options_.initial, options_.unit);
    const double elapsed = options_.clock() - start_;
    const double worked = done_ - initial;
    std::string line = label;
    if (total > 0) {
        const double share = std::clamp(done_ / total, 0.0, 1.0);
        line += fmt::format(" {:3.0f}%", std::floor(share * 100));
        const size_t full = static_cast<size_t>(share * static_cast<double>(bar));
        if (bar > 0) line += fmt::format(" [{}{}]", std::string(full, '#'), std::string(bar - full, '-'));
    }
    line += fmt::format(" {}", amount(done_, unit));
    if (total > 0) line += fmt::format("/{}", amount(total, unit));
    if (unit != "B") line += " " + unit;
    if (worked > 0 && elapsed > 0) {
        line += fmt::format(", {}, {}", rate_text(worked / elapsed, unit), human_duration(elapsed));
        if (total > done_) line += fmt::format(", {} left", human_duration((total - done_) * elapsed / worked));
    }
    if (!suffix_.empty()) line += ", " + suffix_;
    return line;
}

void Progress::draw() {
    drawn_at_ = options_.clock();
    if (!terminal_) {
        options_.write(text(0) + "\n");
        return;
    }
    // One character less than the full width: some terminals wrap when the last column is written.
    const size_t columns = (options_.columns > 0 ? static_cast<size_t>(options_.columns) : terminal_columns()) - 1;
    std::string line = text(bar_width);
    if (line.size() > columns) line = text(0);
    cut(line, columns);
    options_.write("\r" + line + "\x1b[K");
    line_open_ = true;
}

}  // namespace colonnade
