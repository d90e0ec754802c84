#pragma once
// CsvLog: records as a table of comma-separated values, which spreadsheets and DuckDB read: a line of names, then a line
// for each record. Names of metrics are words, so nothing needs quotes.
//
//     step,epoch,loss,eval_loss
//     10,0.25,2.31,
//     10,0.25,,2.28
//
// When a record brings a new name, the file is written anew with one more column.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/log/append_file.h"

namespace colonnade {

class CsvLog {
  public:
    /// Without `resumed_step` a new table replaces an old file. With it the table goes on after its last line about that
    /// step or an earlier one. Throws Exit::storage; Exit::data if the old file is not such a table.
    explicit CsvLog(std::string path, std::optional<int64_t> resumed_step = {});
    void write(int64_t step, const std::vector<std::pair<std::string, double>>& numbers);

  private:
    std::string path_;
    std::vector<std::string> columns_;
    std::optional<AppendFile> file_;
};

}  // namespace colonnade
