#include "data/rows/rows.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/rows/row_formats.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr size_t line_limit = size_t{16} << 20;

Json parse_line(const std::string& line, const std::string& where) {
    Json object = parse_json(line, where, {.bytes = line_limit, .depth = 64});
    if (object.is_array())
        fail(Exit::data,
             "{}: expected one JSON object per line (JSONL), found a list; `jq -c '.[]'` turns a JSON list into JSONL",
             where);
    return object;
}

}  // namespace

RowReader::RowReader(DatasetSpec spec, RowKind kind) : spec_(std::move(spec)), kind_(kind), type_(spec_.type) {
    check_row_format(spec_, kind_);
    std::error_code error;
    if (std::filesystem::is_directory(spec_.path, error))
        fail(Exit::data, "{}: expected a JSONL file, found a folder", spec_.path);
    file_.open(spec_.path, std::ios::binary);
    if (!file_) fail(Exit::data, "{}: cannot open: {}", spec_.path, std::strerror(errno));
    const auto size = std::filesystem::file_size(spec_.path, error);
    bytes_total_ = error ? 0 : static_cast<int64_t>(size);
    buffer_ = std::make_unique_for_overwrite<char[]>(line_limit + 1);

    std::string first;
    if (!read_line(first)) fail(Exit::data, "{}: no rows: the file is empty", spec_.path);
    if (type_ == "auto") {
        const std::string where = fmt::format("{}:{}", spec_.path, line_);
        type_ = detect_row_format(kind_, parse_line(first, where), spec_.columns, where);
    }
    peeked_ = std::move(first);
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
    if (peeked_) {
        line = std::move(*peeked_);
        peeked_.reset();
    } else if (!read_line(line)) {
        return false;
    }
    number = line_;
    return true;
}

Row RowReader::parse(const std::string& line, int64_t number) const {
    const std::string where = fmt::format("{}:{}", spec_.path, number);
    Row row = read_row(kind_, type_, parse_line(line, where), spec_.columns, where);
    row.line = number;
    return row;
}

bool RowReader::next(Row& row) {
    std::string line;
    int64_t number = 0;
    if (!next_line(line, number)) return false;
    row = parse(line, number);
    return true;
}

double RowReader::progress() const {
    return bytes_total_ == 0 ? 1.0 : static_cast<double>(bytes_read_) / static_cast<double>(bytes_total_);
}

}  // namespace colonnade
