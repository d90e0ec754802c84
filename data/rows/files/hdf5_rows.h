#pragma once
// Hdf5Rows: the rows of an HDF5 file of token ids, each as a JSON object. They are arrays of the file's root:
//
//   row_begins  i64 [rows + 1]   row r has the entries [row_begins[r], row_begins[r + 1]) of ...
//   any other   [T] or [T, k]    ... integers or floats, T = row_begins[rows]: a list, or a list of lists, under its name
//   or          [rows]           a number of each row, if rows differs from T
//
// For example input_ids i32 [T], labels i32 [T], teacher_ids i32 [T, k] and teacher_log_probs f16 [T, k], with ids of -1
// for places that are not filled. Arrays are stored plainly (engine/io/hdf5.h says how). Memory: one row.

#include <memory>
#include <vector>

#include "data/rows/files/row_source.h"
#include "engine/io/hdf5.h"

namespace colonnade {

class Hdf5Rows : public RowSource {
  public:
    /// Throws Exit::data for arrays of other shapes, and if row_begins does not rise from 0.
    explicit Hdf5Rows(const std::string& path);
    bool next(std::string& row, int64_t& number) override;
    Numbering numbering() const override { return Numbering::rows; }
    int64_t count() override { return rows() - row_; }
    double progress() const override;

  private:
    struct Column {
        std::string name;
        DType dtype;
        int64_t width = 1;  ///< numbers of an entry
        bool lists = false, per_row = false;
    };
    int64_t rows() const { return std::ssize(begins_) - 1; }
    void add_column(const std::string& name);
    void write(const Column& column, int64_t begin, int64_t count, std::string& json) const;

    std::string path_;
    Hdf5Reader file_;
    std::vector<int64_t> begins_;
    std::vector<Column> columns_;
    int64_t row_ = 0;
};

}  // namespace colonnade
