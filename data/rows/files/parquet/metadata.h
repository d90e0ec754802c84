#pragma once
// Metadata of a Parquet file (github.com/apache/parquet-format, parquet.thrift): the footer, and the header of a page.
// Only what reading rows needs is kept.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/files/parquet/schema.h"
#include "engine/io/files.h"

namespace colonnade {

enum class ParquetCodec { uncompressed = 0, snappy = 1, gzip = 2, lzo = 3, brotli = 4, lz4 = 5, zstd = 6, lz4_raw = 7 };

/// One column of a row group: pages end to end in [begin, begin + bytes) of the file.
struct ParquetChunk {
    int64_t begin = 0, bytes = 0;
    int64_t values = 0;  ///< nulls and empty lists included
    ParquetCodec codec = ParquetCodec::uncompressed;
};

struct ParquetRowGroup {
    int64_t rows = 0;
    std::vector<ParquetChunk> chunks;  ///< one per leaf
};

struct ParquetFooter {
    ParquetSchema schema;
    std::vector<ParquetRowGroup> row_groups;
    int64_t rows = 0;
};
/// Throws Exit::data for anything damaged or unsupported.
ParquetFooter read_parquet_footer(const InputFile& file);

struct ParquetPage {
    enum Type : int64_t { data = 0, index = 1, dictionary = 2, data_v2 = 3 };
    int64_t type = -1;
    int64_t bytes = -1;             ///< uncompressed
    int64_t compressed_bytes = -1;  ///< in the file
    int64_t values = -1;
    int64_t encoding = -1;
    int64_t definition_encoding = -1, repetition_encoding = -1;  ///< of version 1
    int64_t definition_bytes = 0, repetition_bytes = 0;          ///< of version 2
    bool compressed = true;                                      ///< the values of version 2
    std::optional<uint32_t> crc;                                 ///< of the compressed bytes
};
/// Reads the header at the beginning of `bytes` and sets `header_bytes`. Throws what ThriftReader throws.
ParquetPage read_parquet_page(std::string_view bytes, size_t& header_bytes);

}  // namespace colonnade
