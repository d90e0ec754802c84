#pragma once
// PlacedArray: a flat array of which some ranges are in host memory, the others in the device's.

#include <string>
#include <vector>

#include "engine/device/arena.h"
#include "engine/ranks/communicator.h"

namespace colonnade {

class PlacedArray {
  public:
    /// Neighbours in one place.
    struct Part {
        Range numbers;
        Tensor values;
        bool hosted;  ///< in host memory
    };

    PlacedArray() = default;
    /// Lays out `count` numbers under `group`, each of the ranges `hosted`, which ascend, as a part of its own.
    static PlacedArray lay_out(Arena& device, Arena& host, const std::string& group, DType dtype, int64_t count,
                               const std::vector<Range>& hosted = {});

    bool empty() const { return parts_.empty(); }
    const std::vector<Part>& parts() const { return parts_; }
    /// The part that has a number.
    const Part& part_of(int64_t number) const;
    bool has_hosted() const;
    int64_t largest_hosted() const;  ///< numbers in the largest part of these
    /// Numbers [begin, end), which are in one part.
    Tensor slice(int64_t begin, int64_t end) const;
    /// All numbers, which are in one part.
    Tensor whole() const;

  private:
    std::vector<Part> parts_;
};

}  // namespace colonnade
