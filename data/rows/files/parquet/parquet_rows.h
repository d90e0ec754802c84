#pragma once
// ParquetRows: the rows of a Parquet file, each as the JSON object of its columns. Nested lists and structs become
// lists and objects, a null becomes null, dates and times become the integer that is stored.
//
// Read are: data pages of version 1 and 2; codecs SNAPPY, GZIP, ZSTD and none; encodings PLAIN, RLE, PLAIN_DICTIONARY,
// RLE_DICTIONARY, DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY, BYTE_STREAM_SPLIT; booleans,
// integers, floats, doubles and text. Anything else is refused by name. Checksums of pages are checked where a file has
// them.
//
// Memory: one page of each column, at most 1 GiB in all.

#include <memory>
#include <vector>

#include "data/rows/files/parquet/column.h"
#include "data/rows/files/row_source.h"

namespace colonnade {

class ParquetRows : public RowSource {
  public:
    explicit ParquetRows(const std::string& path);
    bool next(std::string& row, int64_t& number) override;
    Numbering numbering() const override { return Numbering::rows; }
    int64_t count() override { return footer_.rows - row_; }
    double progress() const override;

  private:
    bool open_row_group();
    void close_row_group();
    void write(const ParquetField& field, std::string& json);
    void write_record(const ParquetField& field, std::string& json);
    void write_list(const ParquetField& field, std::string& json);
    void skip(const ParquetField& field, int below);
    void check_elements(const ParquetField& list, bool more) const;
    [[noreturn]] void damaged(const char* what) const;
    [[noreturn]] void too_long() const;

    InputFile file_;
    ParquetFooter footer_;
    size_t next_group_ = 0;
    int64_t rows_left_ = 0;  ///< of the open row group
    int64_t row_ = 0;
    size_t open_bytes_ = 0;
    std::vector<std::unique_ptr<ParquetColumn>> columns_;
};

}  // namespace colonnade
