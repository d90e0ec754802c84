#include "data/rows/files/hdf5_rows.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "data/rows/files/json_text.h"
#include "engine/device/error.h"
#include "engine/device/float16.h"

namespace colonnade {
namespace {

constexpr const char* begins_name = "row_begins";

}  // namespace

Hdf5Rows::Hdf5Rows(const std::string& path) : path_(path), file_(path) {
    const std::vector<std::string> names = file_.names();
    if (std::ranges::find(names, begins_name) == names.end())
        fail(Exit::data,
             "{}: an HDF5 file without '{}'; found: {}; expected input_ids, and where each row begins in it", path,
             begins_name, fmt::join(names, ", "));
    begins_ = file_.read_all<int64_t>(begins_name);
    if (begins_.size() < 2 || begins_.front() != 0)
        fail(Exit::data, "{}: '{}' has {} entries; expected 0, and then where each row ends", path, begins_name,
             begins_.size());
    for (size_t i = 1; i < begins_.size(); ++i)
        if (begins_[i] <= begins_[i - 1])
            fail(Exit::data, "{}: {}[{}] is {}, expected more than {}", path, begins_name, i, begins_[i],
                 begins_[i - 1]);
    for (const std::string& name : names)
        if (name != begins_name) add_column(name);
}

void Hdf5Rows::add_column(const std::string& name) {
    const std::vector<int64_t> shape = file_.shape(name);
    const int64_t entries = begins_.back();
    Column column{.name = name, .dtype = file_.dtype(name)};
    const bool of_entries = (shape.size() == 1 || shape.size() == 2) && shape[0] == entries;
    column.per_row = !of_entries && shape.size() == 1 && shape[0] == rows();
    column.lists = shape.size() == 2;
    if (column.lists) column.width = shape[1];
    if (!of_entries && !column.per_row)
        fail(Exit::data,
             "{}: '{}' has shape [{}]; expected [{}] or [{}, k] for the entries of all rows, or [{}] for rows", path_,
             name, fmt::join(shape, ", "), entries, entries, rows());
    columns_.push_back(std::move(column));
}

double Hdf5Rows::progress() const {
    return static_cast<double>(begins_[static_cast<size_t>(row_)]) / static_cast<double>(begins_.back());
}

void Hdf5Rows::write(const Column& column, int64_t begin, int64_t count, std::string& json) const {
    int64_t done = 0;
    const int64_t width = column.width;
    const auto append = [&](const auto& write_number) {
        if (column.per_row) return write_number();
        if (done % width == 0) json += done == 0 ? (column.lists ? "[[" : "[") : column.lists ? "],[" : ",";
        if (done++ % width != 0) json += ',';
        write_number();
    };
    const auto integer = [&](auto value) { append([&] { fmt::format_to(std::back_inserter(json), "{}", value); }); };
    const auto real = [&](auto value) { append([&] { write_json_real(value, json); }); };
    const auto read = [&]<typename T>(T, auto&& body) {
        std::vector<T> values(static_cast<size_t>(count * width));
        file_.read(column.name, Tensor(values.data(), column.dtype, {std::ssize(values)}), begin * width);
        for (const T value : values) body(value);
    };
    switch (column.dtype) {
        case DType::u8:
            read(uint8_t{}, integer);
            break;
        case DType::i16:
            read(int16_t{}, integer);
            break;
        case DType::i32:
            read(int32_t{}, integer);
            break;
        case DType::i64:
            read(int64_t{}, integer);
            break;
        case DType::f16:
            read(uint16_t{}, [&](uint16_t bits) { real(float_from_f16(bits)); });
            break;
        case DType::bf16:
            read(uint16_t{}, [&](uint16_t bits) { real(float_from_bf16(bits)); });
            break;
        case DType::f32:
            read(float{}, real);
            break;
        case DType::f64:
            read(double{}, real);
            break;
    }
    if (!column.per_row) json += column.lists ? "]]" : "]";
    if (json.size() > row_limit) fail(Exit::data, "{}: row {}: longer than 16 MiB as JSON", path_, row_);
}

bool Hdf5Rows::next(std::string& row, int64_t& number) {
    if (row_ == rows()) return false;
    const int64_t begin = begins_[static_cast<size_t>(row_)], end = begins_[static_cast<size_t>(row_) + 1];
    number = ++row_;
    row.clear();
    char before = '{';
    for (const Column& column : columns_) {
        row += before;
        before = ',';
        write_json_text(column.name, row);
        row += ':';
        column.per_row ? write(column, row_ - 1, 1, row) : write(column, begin, end - begin, row);
    }
    row += '}';
    return true;
}

}  // namespace colonnade
