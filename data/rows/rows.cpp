#include "data/rows/rows.h"

#include <malloc.h>

#include <algorithm>
#include <filesystem>
#include <mutex>

#include "data/rows/kept_answers.h"
#include "data/rows/row_formats.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr size_t detection_rows = 64, detection_bytes = size_t{4} << 20;  ///< detection reads no further

/// The values of a large row take up to 64 MB: they exist on one thread at a time. malloc would keep their memory for
/// the thread that had them.
class LargeRows {
  public:
    explicit LargeRows(size_t bytes) : lock_(mutex(), std::defer_lock) {
        if (bytes > limits::large_row_bytes) lock_.lock();
    }
    ~LargeRows() {
        if (lock_) malloc_trim(0);
    }
    LargeRows(const LargeRows&) = delete;
    LargeRows& operator=(const LargeRows&) = delete;

  private:
    static std::mutex& mutex() {
        static std::mutex one;
        return one;
    }
    std::unique_lock<std::mutex> lock_;
};

Split split_of(const DatasetSpec& spec) {
    if (spec.split.empty()) return {};
    const std::optional<Split> split = parse_split(spec.split);
    if (!split) fail(Exit::config, "{}: split '{}'; expected {}", spec.path, spec.split, split_forms);
    return *split;
}

}  // namespace

DataFiles data_files(const DatasetSpec& spec) {
    return find_data_files(spec.path, split_of(spec));
}

RowReader::RowReader(DatasetSpec spec, RowKind kind) : RowReader(spec, kind, data_files(spec).paths) {}

RowReader::RowReader(DatasetSpec spec, RowKind kind, std::vector<std::string> files)
    : spec_(std::move(spec)), columns_(spec_.columns), kind_(kind), type_(spec_.type), files_(std::move(files)) {
    check_row_format(spec_, kind_);
    numbering_.resize(files_.size());
    double bytes = 0;
    for (const std::string& file : files_) {
        bytes_before_.push_back(bytes);
        std::error_code error;
        const auto size = std::filesystem::file_size(file, error);
        bytes += error ? 0 : static_cast<double>(size);
    }
    bytes_before_.push_back(bytes);
    choose_rows();
    detect();
}

void RowReader::choose_rows() {
    const Split split = split_of(spec_);
    int64_t rows = INT64_MAX;
    if (split.needs_count()) {
        rows = 0;
        for (const std::string& file : files_) rows += open_rows(file)->count();
    }
    if (split.from) begin_ = split.from->of(rows);
    if (split.to) end_ = split.to->of(rows);
    if (spec_.max_samples > 0 && spec_.max_samples < end_ - begin_) end_ = begin_ + spec_.max_samples;
}

/// Detects the format from the first rows. A row that is no JSON ends the search: its own error comes in its turn.
void RowReader::detect() {
    const LargeRows turn(limits::row_bytes);
    std::vector<PlacedRow> rows;
    size_t bytes = 0;
    RowText row;
    while (rows.size() < detection_rows && bytes < detection_bytes && read_text(row)) {
        bytes += row.text.size();
        peeked_.push_back({row, bytes_read()});
        const std::string where = place(row);
        try {
            rows.push_back({parse_object(row.text, where), where});
        } catch (const Error&) {
            if (rows.empty()) throw;
            break;
        }
    }
    if (rows.empty() && (read_ > 0 || begin_ >= end_))
        fail(Exit::data, "{}: split {} takes none of its rows{}", spec_.path, spec_.split,
             begin_ < end_ ? fmt::format(": it has {}", read_) : "");
    if (rows.empty() && files_.size() > 1)
        fail(Exit::data, "{}: no rows: all {} files are empty", spec_.path, files_.size());
    if (rows.empty()) fail(Exit::data, "{}: no rows: the file is empty", files_.front());
    DetectedFormat detected = detect_row_format(kind_, spec_, rows);
    type_ = std::move(detected.type);
    columns_ = std::move(detected.columns);
    if (type_ != "scored" && !spec_.keep.empty())
        fail(Exit::config,
             "{}: keep: {} needs rows of type scored {{prompt, completions, scores}}; these are of type {}", spec_.path,
             spec_.keep, type_);
    if (!spec_.keep.empty() && !parse_keep(spec_.keep))
        fail(Exit::config, "{}: keep: expected {}, found {}", spec_.path, keep_forms, spec_.keep);
}

Json RowReader::parse_object(const std::string& text, const std::string& where) const {
    Json object =
        parse_json(text, where, {.bytes = row_limit, .depth = limits::row_depth, .non_finite = NonFinite::read});
    if (!object.is_object()) fail(Exit::data, "{}: expected an object, found {}", where, object.type_name());
    for (const std::string& key : spec_.ignore_columns) object.erase(key);
    return object;
}

/// Reads the next row of all files.
bool RowReader::read_any(RowText& row) {
    for (; file_ < files_.size(); ++file_, source_.reset()) {
        if (!source_) {
            source_ = open_rows(files_[file_]);
            numbering_[file_] = source_->numbering();
        }
        row.file = file_;
        if (source_->next(row.text, row.number)) return true;
    }
    return false;
}

/// Reads the next row that the split and max_samples take.
bool RowReader::read_text(RowText& row) {
    while (read_ < end_ && read_any(row))
        if (read_++ >= begin_) return true;
    return false;
}

bool RowReader::next_text(RowText& row) {
    if (peeked_.empty()) return read_text(row);
    row = std::move(peeked_.front().row);
    peeked_.pop_front();
    return true;
}

Row RowReader::parse(const RowText& text) const {
    const LargeRows turn(text.text.size());
    const std::string where = place(text);
    Row row = read_row(kind_, type_, parse_object(text.text, where), columns_, where);
    row.line = text.number;
    if (!spec_.keep.empty()) keep_answers(row, *parse_keep(spec_.keep));
    return row;
}

std::string RowReader::found_columns() const {
    std::string found;
    for (const auto& [ours, theirs] : columns_)
        if (!spec_.columns.contains(ours)) found += fmt::format("{}{}: {}", found.empty() ? "" : ", ", ours, theirs);
    return found;
}

bool RowReader::next(Row& row) {
    RowText text;
    if (!next_text(text)) return false;
    row = parse(text);
    return true;
}

double RowReader::bytes_read() const {
    const double before = bytes_before_[file_];
    return source_ ? before + source_->progress() * (bytes_before_[file_ + 1] - before) : before;
}

double RowReader::progress() const {
    const double all = read_ < end_ || !peeked_.empty() ? bytes_before_.back() : 0;
    return all == 0 ? 1.0 : (peeked_.empty() ? bytes_read() : peeked_.front().bytes_read) / all;
}

}  // namespace colonnade
