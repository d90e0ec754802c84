#pragma once
// RowSource: the rows of one data file, each as the text of a JSON object, in the order of the file. What the file is
// decides its content, not its name:
//
//   JSON lines     one object per line; blank lines are skipped
//   JSON           a list of objects, or objects one after another over several lines
//   gzip, zstd     a compressed file of one of these
//   Parquet        data/rows/files/parquet/parquet_rows.h
//   HDF5           data/rows/files/hdf5_rows.h
//
// Text is UTF-8; a byte order mark is skipped. Everything is streamed. Memory is bounded for any content: a row has at
// most 16 MiB of text (white space in front of it included), a zstd window at most 128 MiB.

#include <cstdint>
#include <memory>
#include <string>

#include "engine/io/limits.h"

namespace colonnade {

/// Longest row, in bytes of JSON text.
constexpr size_t row_limit = limits::row_bytes;

/// What the numbers of a file's rows count, from 1.
enum class Numbering { lines, rows };
/// "path:17" or "path: row 17".
std::string row_place(const std::string& path, Numbering numbering, int64_t number);

class RowSource {
  public:
    virtual ~RowSource() = default;
    /// Reads the next row and its number; false at the end of the file. Throws Exit::data with the place.
    virtual bool next(std::string& row, int64_t& number) = 0;
    virtual Numbering numbering() const = 0;
    /// Number of rows from here to the end, to which it reads if it has to.
    virtual int64_t count();
    /// Share of the file read so far, for progress.
    virtual double progress() const = 0;
};

/// Opens a data file. Throws Exit::data if it is missing, or holds something else: the message names what and the way
/// out.
std::unique_ptr<RowSource> open_rows(const std::string& path);

}  // namespace colonnade
