#include "train/log/csv_log.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {
namespace {

/// The lines about steps up to `step` of a table that begins with `columns`; stops at a line that is incomplete.
std::string lines_until(std::string_view table, std::optional<int64_t> step) {
    size_t end = 0;
    for (size_t begin = 0; (begin = end) < table.size();) {
        const size_t line_end = table.find('\n', begin);
        int64_t of_line = 0;
        if (line_end == table.npos) break;
        const auto [stop, error] = std::from_chars(table.data() + begin, table.data() + line_end, of_line);
        if (error != std::errc() || *stop != ',' || (step && of_line > *step)) break;
        end = line_end + 1;
    }
    return std::string(table.substr(0, end));
}

}  // namespace

CsvLog::CsvLog(std::string path, std::optional<int64_t> resumed_step)
    : path_(std::move(path)), columns_({"step", "epoch"}) {
    std::string lines;
    if (resumed_step && path_exists(path_)) {
        const std::string old = read_file(path_);
        const size_t head = old.find('\n');
        if (head == old.npos || !old.starts_with("step,epoch"))
            fail(Exit::data, "{}: expected a first line that begins with step,epoch; remove the file", path_);
        columns_.clear();
        for (size_t begin = 0, end = 0; begin <= head; begin = end + 1) {
            end = std::min(old.find(',', begin), head);
            columns_.push_back(old.substr(begin, end - begin));
        }
        lines = lines_until(std::string_view(old).substr(head + 1), resumed_step);
    }
    write_file_atomically(path_, fmt::format("{}\n", fmt::join(columns_, ",")) + lines);
    file_.emplace(path_);
}

void CsvLog::write(int64_t step, const std::vector<std::pair<std::string, double>>& numbers) {
    const size_t known = columns_.size();
    for (const auto& [name, value] : numbers)
        if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) columns_.push_back(name);
    if (const size_t more = columns_.size() - known; more > 0) {
        const std::string old = read_file(path_);
        std::string table = fmt::format("{}\n", fmt::join(columns_, ","));
        for (const char c : old.substr(old.find('\n') + 1)) {
            if (c == '\n') table.append(more, ',');
            table += c;
        }
        file_.reset();
        write_file_atomically(path_, table);
        file_.emplace(path_);
    }
    std::string line = std::to_string(step);
    for (size_t i = 1; i < columns_.size(); ++i) {
        const auto number =
            std::find_if(numbers.begin(), numbers.end(), [&](const auto& n) { return n.first == columns_[i]; });
        line += number == numbers.end() ? "," : fmt::format(",{}", number->second);
    }
    file_->append(line + '\n');
}

}  // namespace colonnade
