#pragma once
// HDF5, the small part that Colonnade needs: one-dimensional to four-dimensional arrays of numbers and attributes, contiguous, read in bounded
// slabs. Files are written once, never updated in place. Reading accepts only the plain subset (no external storage, links,
// virtual datasets, filters but none/deflate/shuffle/fletcher32, no variable-length types); everything else is Exit::data.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace colonnade {

class Hdf5Writer {
  public:
    explicit Hdf5Writer(const std::string& path);  ///< fails where the file exists
    ~Hdf5Writer();
    Hdf5Writer(const Hdf5Writer&) = delete;
    Hdf5Writer& operator=(const Hdf5Writer&) = delete;
    /// A whole array; `name` may hold slashes (groups are made). The tensor must be contiguous.
    void write(const std::string& name, const Tensor& tensor);
    /// Array written piece by piece: create, then append until `rows` are there.
    void create(const std::string& name, DType dtype, int64_t rows);
    void append(const std::string& name, const Tensor& piece);
    void attribute(const std::string& name, std::string_view text);
    void attribute(const std::string& name, int64_t value);
    void close();  ///< flushes, closes, fsyncs; throws where any of it failed

  private:
    struct Impl;
    Impl* impl_;
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
    int64_t int_attribute(const std::string& name) const;

  private:
    struct Impl;
    Impl* impl_;
};

}  // namespace colonnade
