#include "train/step/quantised_base.h"

#include "train/step/hosted_blocks.h"

namespace colonnade {

QuantisedBase QuantisedBase::lay_out(Arena& device, Arena& host, const ParameterList& list, WeightCode code,
                                     const std::vector<int64_t>& hosted) {
    QuantisedBase base;
    base.code_ = code;
    Arena sizes(device.device());
    for (const Parameter& p : list.all()) {
        const auto begin = static_cast<int64_t>(sizes.mark());
        QuantisedMatrix::lay_out(sizes, "", code, p.shape[0], p.shape[1]);
        const auto end = static_cast<int64_t>(sizes.mark());
        base.matrices_.push_back({.bytes = {begin, end}, .rows = p.shape[0], .columns = p.shape[1]});
        if (base.layers_.empty() || base.layers_.back().layer != p.layer)
            base.layers_.push_back({.layer = p.layer, .begin = begin, .end = end});
        base.layers_.back().end = end;
    }
    base.bytes_ = PlacedArray::lay_out(device, host, "frozen weights", DType::u8, static_cast<int64_t>(sizes.mark()),
                                       ranges_of_blocks(base.layers_, hosted));
    return base;
}

QuantisedMatrix QuantisedBase::matrix(size_t i, const FlatElements& find) const {
    const Matrix& m = matrices_[i];
    const Tensor bytes = find(m.bytes.begin, m.bytes.end);
    Arena arena(bytes.device, bytes.data, bytes.bytes());
    return QuantisedMatrix::lay_out(arena, "", code_, m.rows, m.columns);
}

QuantisedMatrix QuantisedBase::stored(size_t i) const {
    return matrix(i, [&](int64_t begin, int64_t end) { return bytes_.slice(begin, end); });
}

}  // namespace colonnade
