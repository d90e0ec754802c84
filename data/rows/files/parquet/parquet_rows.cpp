#include "data/rows/files/parquet/parquet_rows.h"

#include "data/rows/files/json_text.h"
#include "engine/device/error.h"

namespace colonnade {

ParquetRows::ParquetRows(const std::string& path) : file_(path), footer_(read_parquet_footer(file_)) {}

double ParquetRows::progress() const {
    return footer_.rows == 0 ? 1.0 : static_cast<double>(row_) / static_cast<double>(footer_.rows);
}

void ParquetRows::damaged(const char* what) const {
    fail(Exit::data, "{}: row {}: damaged: {}", file_.path(), row_, what);
}
void ParquetRows::too_long() const {
    fail(Exit::data, "{}: row {}: longer than 16 MiB as JSON", file_.path(), row_);
}

/// Opens the next row group that has rows; false at the end of the file.
bool ParquetRows::open_row_group() {
    while (rows_left_ == 0) {
        close_row_group();
        if (next_group_ == footer_.row_groups.size()) return false;
        const ParquetRowGroup& group = footer_.row_groups[next_group_++];
        rows_left_ = group.rows;
        for (size_t i = 0; i < group.chunks.size(); ++i)
            columns_.push_back(std::make_unique<ParquetColumn>(
                ParquetColumn::Source{file_, footer_.schema.leaves[i], group.chunks[i], open_bytes_}));
    }
    return true;
}

void ParquetRows::close_row_group() {
    for (const auto& column : columns_)
        if (!column->at_end()) damaged("a column has values past the last row");
    columns_.clear();
}

bool ParquetRows::next(std::string& row, int64_t& number) {
    if (!open_row_group()) return false;
    number = ++row_;
    --rows_left_;
    row.clear();
    write_record(footer_.schema.root, row);
    for (const auto& column : columns_)
        if (column->repetition() != 0) damaged("the columns disagree on the length of a list");
    return true;
}

void ParquetRows::write(const ParquetField& field, std::string& json) {
    ParquetColumn& first = *columns_[field.leaves_begin];
    if (first.at_end()) damaged("a column has too few values");
    if (json.size() + first.text_bytes() > row_limit) too_long();
    if (first.definition() < field.present) {
        json += "null";
        return skip(field, field.present);
    }
    switch (field.kind) {
        case ParquetField::Kind::leaf:
            first.write(json);
            first.advance();
            break;
        case ParquetField::Kind::record:
            write_record(field, json);
            break;
        case ParquetField::Kind::list:
            write_list(field, json);
            break;
    }
}

void ParquetRows::write_record(const ParquetField& field, std::string& json) {
    char before = '{';
    for (const ParquetField& child : field.children) {
        json += before;
        before = ',';
        write_json_text(child.name, json);
        json += ':';
        write(child, json);
    }
    json += '}';
}

void ParquetRows::write_list(const ParquetField& field, std::string& json) {
    const ParquetColumn& first = *columns_[field.leaves_begin];
    if (first.definition() < field.filled) {
        json += "[]";
        return skip(field, field.filled);
    }
    char before = '[';
    for (bool more = true; more; before = ',') {
        json += before;
        write(field.children.front(), json);
        more = first.repetition() == field.repeats;
        check_elements(field, more);
    }
    json += ']';
}

/// All columns of a list have to agree on whether another element follows.
void ParquetRows::check_elements(const ParquetField& list, bool more) const {
    for (size_t i = list.leaves_begin; i < list.leaves_end; ++i) {
        const int repetition = columns_[i]->repetition();
        if (more != (repetition == list.repeats) || repetition > list.repeats)
            damaged("the columns disagree on the length of a list");
    }
}

/// Passes the entry of a null or an empty list, which every column below has: its level is less than `below`.
void ParquetRows::skip(const ParquetField& field, int below) {
    for (size_t i = field.leaves_begin; i < field.leaves_end; ++i) {
        if (columns_[i]->at_end() || columns_[i]->definition() >= below) damaged("the columns disagree on a null");
        columns_[i]->advance();
    }
}

}  // namespace colonnade
