#pragma once
// Decompression by zlib, zstd and snappy: streams (byte_source.h) and single pages of known size.

#include <memory>
#include <string_view>

#include "data/rows/files/byte_source.h"

namespace colonnade {

std::unique_ptr<Inflater> gzip_inflater();
std::unique_ptr<Inflater> zstd_inflater();

/// Decompress `in` into exactly `bytes` bytes at `out`; false if `in` is damaged or has another size.
bool inflate_gzip(std::string_view in, char* out, size_t bytes);
bool inflate_zstd(std::string_view in, char* out, size_t bytes);
bool inflate_snappy(std::string_view in, char* out, size_t bytes);

/// CRC-32 as gzip and Parquet use it.
uint32_t crc32_of(std::string_view bytes);

}  // namespace colonnade
