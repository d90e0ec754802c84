#pragma once
// JsonRows: the rows of a text file. Its beginning decides the form:
//
//   lines    the first line is a whole object, or the next line begins another one: JSON lines, places are "path:line"
//   list     the text begins with [: its elements are the rows, places are "path: row N"
//   objects  otherwise: objects one after another, over any number of lines, places are "path: row N"
//
// Rows are only cut out here, by brackets and strings; parsing checks the JSON itself (engine/io/json.h).

#include <string>
#include <string_view>

#include "data/rows/files/byte_source.h"
#include "data/rows/files/row_source.h"

namespace colonnade {

class JsonRows : public RowSource {
  public:
    explicit JsonRows(std::unique_ptr<ByteSource> bytes);
    bool next(std::string& row, int64_t& number) override;
    Numbering numbering() const override { return form_ == Form::lines ? Numbering::lines : Numbering::rows; }
    double progress() const override { return bytes_->progress(end_ - begin_); }

  private:
    enum class Form { lines, list, objects };

    Form detect();
    bool is_single_line();
    void refuse_wrapper();
    bool next_line(std::string& row);
    bool next_element();
    bool next_value(std::string& row);
    size_t end_of_value();
    size_t end_of_line();
    char skip_space();
    bool refill();
    [[noreturn]] void refuse(const std::string& what) const;
    const std::string& path() const { return bytes_->path(); }

    std::unique_ptr<ByteSource> bytes_;
    std::string text_;  ///< bytes [begin_, end_) are read and not used yet
    size_t begin_ = 0, end_ = 0;
    int64_t line_ = 1;  ///< of begin_
    int64_t row_ = 0;   ///< number of the last row
    bool end_of_file_ = false, end_of_list_ = false;
    Form form_ = Form::lines;
};

}  // namespace colonnade
