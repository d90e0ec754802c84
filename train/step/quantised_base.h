#pragma once
// QuantisedBase: the matrices of a frozen base in fewer bits (layers/quantised_matrix.h), in one flat array of bytes, of which
// those of some blocks may be in host memory.

#include "layers/quantised_matrix.h"
#include "train/model/parameters.h"
#include "train/step/placed_array.h"

namespace colonnade {

class QuantisedBase {
  public:
    QuantisedBase() = default;
    /// Of a list's parameters; those of `hosted` blocks, which ascend, in host memory.
    static QuantisedBase lay_out(Arena& device, Arena& host, const ParameterList& list, WeightCode code,
                                 const std::vector<int64_t>& hosted);

    const PlacedArray& bytes() const { return bytes_; }
    /// The bytes of each layer.
    const std::vector<LayerRange>& layers() const { return layers_; }
    size_t size() const { return matrices_.size(); }
    /// The matrix of the list's parameter i, whose bytes `find` finds.
    QuantisedMatrix matrix(size_t i, const FlatElements& find) const;
    /// The same matrix, in the memory that stores it.
    QuantisedMatrix stored(size_t i) const;

  private:
    struct Matrix {
        Range bytes;
        int64_t rows, columns;
    };
    WeightCode code_{};
    std::vector<Matrix> matrices_;
    std::vector<LayerRange> layers_;
    PlacedArray bytes_;
};

}  // namespace colonnade
