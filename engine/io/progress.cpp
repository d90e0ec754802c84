#include "engine/io/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <tuple>

#include "engine/device/human_units.h"
#include "engine/device/terminal.h"

namespace colonnade {
namespace {

constexpr double terminal_interval = 0.1, plain_interval = 10.0;  // seconds between drawings
constexpr std::chrono::milliseconds tick_interval(500);           // of drawings without an update
constexpr size_t widest_bar = 20, narrowest_bar = 5;

double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void write_stderr(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
}

std::string amount(double value, const std::string& unit) {
    return unit == "B" ? human_bytes(static_cast<size_t>(value)) : fmt::format("{:.0f}", std::floor(value));
}

std::string rate_text(double rate, const std::string& unit) {
    if (unit == "B") return human_bytes(static_cast<size_t>(rate)) + "/s";
    if (rate >= 1000) return fmt::format("{} {}/s", human_count(rate), unit);
    if (rate >= 1) return fmt::format("{:.2f} {}/s", rate, unit);
    // Slow work is easier to read the other way round: 12.0 s per step.
    const bool plural = unit.size() > 1 && unit.back() == 's';
    return fmt::format("{} per {}", human_duration(1 / rate), plural ? unit.substr(0, unit.size() - 1) : unit);
}

/// In whole seconds: tenths would only flicker.
std::string left_text(double seconds) {
    return (seconds < 59.5 ? fmt::format("{:.0f} s", std::ceil(seconds)) : human_duration(seconds)) + " left";
}

/// Adds fields in their order, as long as they fit.
void add_fields(std::string& line, const std::vector<std::string>& fields, size_t columns) {
    for (const std::string& field : fields) {
        if (display_width(line) + 2 + display_width(field) > columns) return;
        line += ", " + field;
    }
}

std::string fields_after(std::string_view head, const std::vector<std::string>& fields, size_t columns) {
    std::string line(head);
    add_fields(line, fields, columns);
    if (line.size() > head.size()) line[head.size()] = ':';  // instead of a comma
    return line;
}

}  // namespace

std::string ProgressFields::after(std::string_view head) const {
    return fields_after(head, texts, std::string().max_size());
}

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
    const bool ticks = !options_.clock;
    if (!options_.clock) options_.clock = steady_seconds;
    if (!options_.write) options_.write = write_stderr;
    terminal_ = options_.terminal.value_or(is_terminal(STDERR_FILENO));
    colours_ = options_.colours.value_or(has_colours(STDERR_FILENO));
    done_ = options_.initial;
    start_ = drawn_at_ = updated_at_ = options_.clock();
    if (terminal_ || !options_.passing) draw();
    if (terminal_ && ticks) ticker_ = std::thread([this] { tick(); });
}

Progress::~Progress() {
    stop_ticking();
    end_line();
}

void Progress::stop_ticking() {
    {
        const std::lock_guard lock(mutex_);
        finished_ = true;
    }
    ended_.notify_all();
    if (ticker_.joinable()) ticker_.join();
}

void Progress::tick() {
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, tick_interval, [this] { return finished_; })) draw();
}

void Progress::update(double done) {
    const std::lock_guard lock(mutex_);
    done_ = done;
    updated_at_ = options_.clock();
    if (updated_at_ - drawn_at_ >= (terminal_ ? terminal_interval : plain_interval)) draw();
}

void Progress::fields(ProgressFields fields) {
    const std::lock_guard lock(mutex_);
    options_.fields = std::move(fields);
}

void Progress::print(std::string_view line) {
    const std::lock_guard lock(mutex_);
    const std::string text = terminal_ ? wrapped(line, columns(), 4) : std::string(line);
    print_above(colours_ ? with_coloured_mark(text) : text);
}

void Progress::print(std::string_view head, const ProgressFields& fields) {
    const std::lock_guard lock(mutex_);
    print_above(painted(fields_after(head, fields.texts, terminal_ ? columns() : std::string().max_size())));
}

void Progress::print_above(const std::string& line) {
    const bool redraw = line_open_;
    erase();
    options_.write(line + "\n");
    if (redraw) draw();
}

void Progress::pause() {
    const std::lock_guard lock(mutex_);
    erase();
    paused_ = true;
}

void Progress::resume() {
    const std::lock_guard lock(mutex_);
    paused_ = false;
    if (terminal_ && !finished_) draw();
}

void Progress::finish() {
    if (finished_) return;
    stop_ticking();
    paused_ = false;
    if (!options_.passing) draw();
    end_line();
}

void Progress::end_line() {
    if (!line_open_) return;
    if (options_.passing) return erase();
    options_.write("\n");
    line_open_ = false;
}

void Progress::erase() {
    if (line_open_) options_.write("\r\x1b[K");
    line_open_ = false;
}

size_t Progress::columns() const {
    // One less than the full width: some terminals wrap when the last column is written.
    return (options_.columns > 0 ? static_cast<size_t>(options_.columns) : terminal_columns(STDERR_FILENO)) - 1;
}

/// Seconds; below 0 if not known. Between updates it runs on.
double Progress::left(double elapsed) const {
    const double worked = done_ - options_.initial, since_update = options_.clock() - updated_at_;
    if (worked <= 0 || elapsed <= 0 || options_.total <= done_) return -1;
    return std::max(0.0, (options_.total - done_) * (elapsed - since_update) / worked - since_update);
}

std::string Progress::counts(size_t bar, Form form) const {
    const auto& [label, total, unit] = std::tie(options_.label, options_.total, options_.unit);
    std::string line = label;
    if (total > 0) {
        const double share = std::clamp(done_ / total, 0.0, 1.0);
        if (form == Form::complete) line += fmt::format(" {:3.0f}%", std::floor(share * 100));
        const auto full = static_cast<size_t>(share * static_cast<double>(bar));
        if (bar > 0) line += fmt::format(" [{}{}]", std::string(full, '#'), std::string(bar - full, '-'));
    }
    line += fmt::format(" {}", amount(done_, unit));
    if (total > 0) line += fmt::format("/{}", amount(total, unit));
    if (unit != "B" && form == Form::complete) line += " " + unit;
    return line;
}

/// All fields, most important first.
std::vector<std::string> Progress::all_fields() const {
    const double elapsed = options_.clock() - start_, worked = done_ - options_.initial;
    std::vector<std::string> fields = options_.fields.texts;
    if (const double seconds = left(elapsed); seconds >= 0)
        fields.insert(fields.begin(), left_text(seconds));
    else if (terminal_ && options_.total > done_)
        fields.insert(fields.begin(), "- left");
    if (worked <= 0 || elapsed <= 0) return fields;
    fields.push_back(rate_text(worked / elapsed, options_.unit));
    fields.push_back(human_duration(elapsed));
    return fields;
}

std::string Progress::plain_text() const {
    std::string line = counts(0, Form::complete);
    add_fields(line, all_fields(), line.max_size());
    return line;
}

/// The counts, as many fields as fit, and a bar in the room that is left.
std::string Progress::fitting_text() const {
    const size_t width = columns() - std::min<size_t>(columns(), 2);  // the echo of Ctrl-C, ^C, must not wrap
    const std::vector<std::string> fields = all_fields();
    std::string kept = counts(0, Form::complete);
    add_fields(kept, {fields.begin(), fields.begin() + std::min(options_.fields.kept + 1, fields.size())},
               kept.max_size());
    const Form form = display_width(kept) > width ? Form::brief : Form::complete;
    const size_t without_fields = std::min(display_width(counts(0, form)), width);
    std::string tail;
    add_fields(tail, fields, width - without_fields);
    const size_t room = width - without_fields - display_width(tail);
    const size_t bar = room >= narrowest_bar + 3 ? std::min(room - 3, widest_bar) : 0;
    const std::string line = counts(bar, form) + tail;
    return line.substr(0, bytes_within(line, width));
}

void Progress::draw() {
    if (paused_) return;
    if (options_.done) {
        done_ = options_.done();
        updated_at_ = options_.clock();
    }
    drawn_at_ = options_.clock();
    if (!terminal_) return options_.write(painted(plain_text()) + "\n");
    options_.write("\r" + painted(fitting_text()) + "\x1b[K");
    line_open_ = true;
}

std::string Progress::painted(const std::string& text) const {
    return colours_ ? bold_figures(text) : text;
}

}  // namespace colonnade
