#pragma once
// Encodings of Parquet (github.com/apache/parquet-format, Encodings.md). Input is untrusted: each function returns
// false for bytes that do not hold `count` values.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/files/parquet/schema.h"
#include "engine/io/limits.h"

namespace colonnade {

/// Most bytes of a page, uncompressed; also of all texts that DELTA_BYTE_ARRAY makes of one.
constexpr size_t parquet_page_limit = limits::parquet_page_bytes;

enum class ParquetEncoding {
    plain = 0,
    plain_dictionary = 2,
    rle = 3,
    bit_packed = 4,
    delta_binary_packed = 5,
    delta_length_byte_array = 6,
    delta_byte_array = 7,
    rle_dictionary = 8,
    byte_stream_split = 9,
};
const char* parquet_encoding_name(int64_t encoding);

/// The values of a page. Numbers are kept as bits: integers sign-extended, reals as double. Texts point into the page,
/// or into `made`.
struct ParquetValues {
    std::vector<uint64_t> bits;
    std::vector<std::string_view> texts;
    std::string made;

    size_t size() const { return texts.empty() ? bits.size() : texts.size(); }
};

/// RLE / bit-packing hybrid of values of `width` bits, up to 32.
template <typename T>
bool read_rle(std::string_view bytes, int width, size_t count, std::vector<T>& out);

/// Values of any encoding but the dictionary ones.
bool read_parquet_values(ParquetEncoding encoding, ParquetType type, std::string_view bytes, size_t count,
                         ParquetValues& out);

}  // namespace colonnade
