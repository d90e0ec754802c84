#pragma once
// The small part of HDF5 that Colonnade needs: numeric arrays of up to four dimensions, and text and integer attributes
// of the file.
//
// Written files are contiguous and without time stamps (the same content gives the same bytes). A file that is not
// closed is removed, and no reader opens the file of a killed process. Reading accepts only a plain subset: contiguous
// or chunked storage without filters; little-endian numbers of our dtypes; hard links; no
// external or virtual storage; no variable-length types; and no more elements than the file can hold. Everything else
// throws Exit::data.
//
// The HDF5 library parses a file before we can check it, so open only files from a trusted source. All calls in a
// process take one lock. A reader or writer may be used by one thread at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade {

/// A failure throws Exit::storage and abandons the file. If destroyed without close(), the file is removed.
class Hdf5Writer {
  public:
    explicit Hdf5Writer(const std::string& path);  ///< fails if the file exists
    ~Hdf5Writer();
    Hdf5Writer(const Hdf5Writer&) = delete;
    Hdf5Writer& operator=(const Hdf5Writer&) = delete;
    /// Writes a whole array. `name` may contain slashes; the groups are created. The tensor is contiguous and on the
    /// CPU.
    void write(const std::string& name, const Tensor& tensor);
    /// An array [rows], or [rows, width], in pieces of whole rows: create() it, then append() until it has all rows.
    void create(const std::string& name, DType dtype, int64_t rows, std::optional<int64_t> width = {});
    void append(const std::string& name, const Tensor& piece);
    /// A one-dimensional array whose bytes are written into the file after close(), by other means. Returns their
    /// offset.
    uint64_t reserve(const std::string& name, DType dtype, int64_t rows);
    void attribute(const std::string& name, std::string_view text);  ///< up to 64,000 bytes without NUL
    void attribute(const std::string& name, int64_t value);
    void close();  ///< flushes, closes and fsyncs; throws if any of these fails

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

class Hdf5Reader {
  public:
    explicit Hdf5Reader(const std::string& path);
    ~Hdf5Reader();
    Hdf5Reader(const Hdf5Reader&) = delete;
    Hdf5Reader& operator=(const Hdf5Reader&) = delete;
    std::vector<std::string> names() const;  ///< of what the file's root has, sorted
    bool has(const std::string& name) const;
    std::vector<int64_t> shape(const std::string& name) const;
    DType dtype(const std::string& name) const;
    /// Reads elements [begin, begin + into.numel()) of the flattened array. The dtypes must be equal.
    void read(const std::string& name, const Tensor& into, int64_t begin = 0) const;
    template <typename T>
    std::vector<T> read_all(const std::string& name) const {
        std::vector<T> values(static_cast<size_t>(count(name)));
        read(name, Tensor(values.data(), dtype_of<T>(), {static_cast<int64_t>(values.size())}));
        return values;
    }
    int64_t count(const std::string& name) const;
    /// Offset in the file of the bytes of an array. Throws Exit::data if they are stored in chunks.
    uint64_t offset(const std::string& name) const;
    bool has_attribute(const std::string& name) const;
    std::string text_attribute(const std::string& name) const;
    int64_t int_attribute(const std::string& name) const;  ///< any integer, or h5py's bool

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace colonnade
