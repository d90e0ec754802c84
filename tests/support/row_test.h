#pragma once
// RowTest: reads the first row of a JSONL text.

#include <string>

#include "data/rows/rows.h"
#include "tests/support/file_test.h"

namespace colonnade {

/// A folder with one data file in it.
class RowTest : public FileTest {
  protected:
    /// Line breaks in `json` are for the reader of a test: the file has one line.
    Row first_row(std::string json, RowKind kind = RowKind::texts, DatasetSpec spec = {}) {
        std::erase(json, '\n');
        spill(path("rows.jsonl"), json);
        spec.path = path("rows.jsonl");
        RowReader rows(std::move(spec), kind);
        type_ = rows.type();
        found_columns_ = rows.found_columns();
        Row row;
        EXPECT_TRUE(rows.next(row));
        return row;
    }
    void expect_refused(const std::string& json, const std::string& part, RowKind kind = RowKind::texts) {
        expect_error(Exit::data, part, [&] { (void)first_row(json, kind); });
    }
    std::string type_, found_columns_;  ///< of the last row
};

/// "(role: content) (role: content)"; the messages of a prompt stand before a "|".
inline std::string chat_text(const Row& row) {
    std::string text;
    for (size_t i = 0; i < row.messages.size(); ++i) {
        if (row.prompt_messages > 0 && static_cast<int64_t>(i) == row.prompt_messages) text += "| ";
        text += fmt::format("({}: {}) ", row.messages[i].role, row.messages[i].content);
    }
    return text.empty() ? text : text.substr(0, text.size() - 1);
}

}  // namespace colonnade
