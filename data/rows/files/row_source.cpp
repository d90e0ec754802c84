#include "data/rows/files/row_source.h"

#include "data/rows/files/byte_source.h"
#include "data/rows/files/hdf5_rows.h"
#include "data/rows/files/json_rows.h"
#include "data/rows/files/parquet/parquet_rows.h"
#include "engine/device/error.h"

namespace colonnade {

std::string row_place(const std::string& path, Numbering numbering, int64_t number) {
    return numbering == Numbering::lines ? fmt::format("{}:{}", path, number) : fmt::format("{}: row {}", path, number);
}

int64_t RowSource::count() {
    int64_t rows = 0, number = 0;
    for (std::string row; next(row, number);) ++rows;
    return rows;
}

std::unique_ptr<RowSource> open_rows(const std::string& path) {
    auto bytes = std::make_unique<ByteSource>(path);
    if (bytes->head().starts_with("PAR1")) return std::make_unique<ParquetRows>(path);
    if (bytes->head().starts_with("\x89HDF\r\n\x1A\n")) return std::make_unique<Hdf5Rows>(path);
    return std::make_unique<JsonRows>(std::move(bytes));
}

}  // namespace colonnade
