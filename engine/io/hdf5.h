#pragma once
// HDF5, the small part that Colonnade needs: arrays of numbers of up to four dimensions, and text and integer
// attributes of the file. Written files are contiguous, without time stamps (same content, same bytes); one that is not
// closed is removed, and what a killed process leaves no reader opens. Reading accepts only the plain subset:
// contiguous or chunked, filters none, deflate, shuffle or fletcher32, little-endian numbers of our own dtypes, hard
// links, no external or virtual storage, no variable-length types, and no more elements declared than the file can
// hold; everything else is Exit::data.
//
// The library parses a file before we can check it: open files of trusted origin only. Calls are made one at a time,
// under one lock for the process. A reader or writer belongs to one thread at a time.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade {

/// Any failure is Exit::storage and gives the file up. Destroyed without close(), the file is removed.
class Hdf5Writer {
  public:
    explicit Hdf5Writer(const std::string& path);  ///< fails where the file exists
    ~Hdf5Writer();
    Hdf5Writer(const Hdf5Writer&) = delete;
    Hdf5Writer& operator=(const Hdf5Writer&) = delete;
    /// A whole array; `name` may hold slashes (groups are made). The tensor must be contiguous, on the CPU.
    void write(const std::string& name, const Tensor& tensor);
    /// One-dimensional array written piece by piece: create, then append until `rows` are there.
    void create(const std::string& name, DType dtype, int64_t rows);
    void append(const std::string& name, const Tensor& piece);
    void attribute(const std::string& name, std::string_view text);  ///< up to 64,000 bytes without NUL
    void attribute(const std::string& name, int64_t value);
    void close();  ///< flushes, closes, fsyncs; throws where any of it failed

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
    bool has(const std::string& name) const;
    std::vector<int64_t> shape(const std::string& name) const;
    DType dtype(const std::string& name) const;
    /// Elements [begin, begin + into.numel()) of the flattened array; dtypes must be equal.
    void read(const std::string& name, const Tensor& into, int64_t begin = 0) const;
    template <typename T>
    std::vector<T> read_all(const std::string& name) const {
        std::vector<T> values(static_cast<size_t>(count(name)));
        read(name, Tensor(values.data(), dtype_of<T>(), {static_cast<int64_t>(values.size())}));
        return values;
    }
    int64_t count(const std::string& name) const;
    bool has_attribute(const std::string& name) const;
    std::string text_attribute(const std::string& name) const;
    int64_t int_attribute(const std::string& name) const;  ///< any integer, or h5py's bool

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace colonnade
