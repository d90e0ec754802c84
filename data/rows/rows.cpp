#include "data/rows/rows.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/rows/row_formats.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr size_t line_limit = size_t{16} << 20;
constexpr size_t detection_rows = 64, detection_bytes = size_t{4} << 20;  ///< detection reads no further

}  // namespace

RowReader::RowReader(DatasetSpec spec, RowKind kind)
    : spec_(std::move(spec)), columns_(spec_.columns), kind_(kind), type_(spec_.type) {
    check_row_format(spec_, kind_);
    std::error_code error;
    if (std::filesystem::is_directory(spec_.path, error))
        fail(Exit::data, "{}: expected a JSONL file, found a folder", spec_.path);
    file_.open(spec_.path, std::ios::binary);
    if (!file_) fail(Exit::data, "{}: cannot open: {}", spec_.path, std::strerror(errno));
    const auto size = std::filesystem::file_size(spec_.path, error);
    bytes_total_ = error ? 0 : static_cast<int64_t>(size);
    buffer_ = std::make_unique_for_overwrite<char[]>(line_limit + 1);
    detect();
}

/// Detects the format from the first rows. A row that is no JSON ends the search: its own error comes in its turn.
void RowReader::detect() {
    std::vector<PlacedRow> rows;
    size_t bytes = 0;
    std::string line;
    while (rows.size() < detection_rows && bytes < detection_bytes && read_line(line)) {
        bytes += line.size();
        peeked_.push_back({line, line_, bytes_read_});
        const std::string where = fmt::format("{}:{}", spec_.path, line_);
        try {
            rows.push_back({parse_object(line, where), where});
        } catch (const Error&) {
            if (rows.empty()) throw;
            break;
        }
    }
    if (rows.empty()) fail(Exit::data, "{}: no rows: the file is empty", spec_.path);
    DetectedFormat detected = detect_row_format(kind_, spec_, rows);
    type_ = std::move(detected.type);
    columns_ = std::move(detected.columns);
}

Json RowReader::parse_object(const std::string& line, const std::string& where) const {
    Json object = parse_json(line, where, {.bytes = line_limit, .depth = 64, .non_finite = NonFinite::read});
    if (object.is_array())
        fail(Exit::data,
             "{}: expected one JSON object per line (JSONL), found a list; `jq -c '.[]'` turns a JSON list into JSONL",
             where);
    if (!object.is_object()) fail(Exit::data, "{}: expected an object, found {}", where, object.type_name());
    for (const std::string& key : spec_.ignore_columns) object.erase(key);
    return object;
}

bool RowReader::read_line(std::string& line) {
    for (;;) {
        file_.getline(buffer_.get(), line_limit + 1);  // the line and a terminating NUL
        const auto extracted = static_cast<int64_t>(file_.gcount());
        if (file_.bad()) fail(Exit::data, "{}: cannot read past line {}: {}", spec_.path, line_, std::strerror(errno));
        if (extracted == 0 && file_.eof()) return false;
        ++line_;
        bytes_read_ += extracted;
        if (file_.fail()) fail(Exit::data, "{}:{}: the line is longer than 16 MiB", spec_.path, line_);
        std::string_view text(buffer_.get(), static_cast<size_t>(extracted - (file_.eof() ? 0 : 1)));
        if (line_ == 1 && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // byte order mark
        if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        line = text;
        return true;
    }
}

bool RowReader::next_line(std::string& line, int64_t& number) {
    if (!peeked_.empty()) {
        line = std::move(peeked_.front().text);
        number = peeked_.front().number;
        peeked_.pop_front();
        return true;
    }
    if (!read_line(line)) return false;
    number = line_;
    return true;
}

Row RowReader::parse(const std::string& line, int64_t number) const {
    const std::string where = fmt::format("{}:{}", spec_.path, number);
    Row row = read_row(kind_, type_, parse_object(line, where), columns_, where);
    row.line = number;
    return row;
}

std::string RowReader::found_columns() const {
    std::string found;
    for (const auto& [ours, theirs] : columns_)
        if (!spec_.columns.contains(ours)) found += fmt::format("{}{}: {}", found.empty() ? "" : ", ", ours, theirs);
    return found;
}

bool RowReader::next(Row& row) {
    std::string line;
    int64_t number = 0;
    if (!next_line(line, number)) return false;
    row = parse(line, number);
    return true;
}

double RowReader::progress() const {
    const int64_t read = peeked_.empty() ? bytes_read_ : peeked_.front().bytes_read;
    return bytes_total_ == 0 ? 1.0 : static_cast<double>(read) / static_cast<double>(bytes_total_);
}

}  // namespace colonnade
