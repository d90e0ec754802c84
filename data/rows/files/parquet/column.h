#pragma once
// ParquetColumn: the values of one column of one row group, one after another. It holds one page at a time.

#include <string>
#include <string_view>
#include <vector>

#include "data/rows/files/parquet/encodings.h"
#include "data/rows/files/parquet/metadata.h"

namespace colonnade {

class ParquetColumn {
  public:
    /// `open_bytes` counts the memory of all columns of the file; more than 1 GiB is refused.
    struct Source {
        const InputFile& file;
        const ParquetLeaf& leaf;
        ParquetChunk chunk;
        size_t& open_bytes;
    };
    explicit ParquetColumn(const Source& source);
    ~ParquetColumn();
    ParquetColumn(const ParquetColumn&) = delete;
    ParquetColumn& operator=(const ParquetColumn&) = delete;

    bool at_end() const { return at_ == levels_; }
    int definition() const { return definitions_.empty() ? source_.leaf.definition : definitions_[at_]; }
    /// 0 begins a row, also at the end.
    int repetition() const { return at_end() || repetitions_.empty() ? 0 : repetitions_[at_]; }
    /// The current entry holds a value, which write() appends as JSON.
    bool has_value() const { return definition() == source_.leaf.definition; }
    void write(std::string& json) const;
    size_t text_bytes() const {  ///< 0 unless the value is a text
        return has_value() && source_.leaf.type == ParquetType::bytes ? values_.texts[value_].size() : 0;
    }
    void advance() {
        value_ += has_value() ? 1 : 0;
        if (++at_ == levels_) load_page();
    }

  private:
    void load_page();
    ParquetPage next_page();
    void read_dictionary(const ParquetPage& page);
    void read_levels(const ParquetPage& page, std::string_view& bytes);
    void read_values(const ParquetPage& page, std::string_view bytes);
    std::string_view level_bytes(int64_t encoding, std::string_view& bytes) const;
    void decompress(std::string_view in, std::string& out, size_t begin) const;
    void read_page_bytes(const ParquetPage& page, std::string& into);
    size_t memory_of(const ParquetPage& page) const;
    void account(size_t bytes);
    [[noreturn]] void damaged(const std::string& what) const;

    Source source_;
    int64_t next_byte_ = 0, bytes_left_ = 0, values_left_ = 0;
    std::string page_, compressed_, dictionary_page_;
    ParquetValues values_, dictionary_;
    bool has_dictionary_ = false;
    std::vector<uint8_t> definitions_, repetitions_;  ///< empty if the largest level is 0
    size_t levels_ = 0, at_ = 0, value_ = 0;
    size_t accounted_ = 0;
};

}  // namespace colonnade
