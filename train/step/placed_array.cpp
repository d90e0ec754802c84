#include "train/step/placed_array.h"

#include <algorithm>

namespace colonnade {

PlacedArray PlacedArray::lay_out(Arena& device, Arena& host, const std::string& group, DType dtype, int64_t count,
                                 const std::vector<Range>& hosted) {
    int64_t in_host = 0;
    for (const Range& range : hosted) in_host += range.size();
    Tensor on_device, on_host;
    if (in_host < count || count == 0) on_device = device.tensor(group, dtype, {count - in_host});
    if (in_host > 0) on_host = host.tensor(group + " (host)", dtype, {in_host});
    PlacedArray array;
    int64_t placed = 0, from_device = 0, from_host = 0;
    const auto add = [&](int64_t end, bool in_host_memory) {
        int64_t& from = in_host_memory ? from_host : from_device;
        const int64_t size = end - placed;
        if (size > 0 || count == 0)
            array.parts_.push_back({.numbers = {placed, end},
                                    .values = (in_host_memory ? on_host : on_device).slice(0, from, from + size),
                                    .hosted = in_host_memory});
        from += size;
        placed = end;
    };
    for (const Range& range : hosted) {
        require(placed <= range.begin && range.end <= count, "ranges in host memory that do not ascend");
        if (placed < range.begin) add(range.begin, false);
        if (range.size() > 0) add(range.end, true);
    }
    if (placed < count || count == 0) add(count, false);
    return array;
}

const PlacedArray::Part& PlacedArray::part_of(int64_t number) const {
    const auto after = std::ranges::upper_bound(parts_, number, {}, [](const Part& p) { return p.numbers.begin; });
    require(after != parts_.begin(), "number {} of an array without one", number);
    return *std::prev(after);
}

bool PlacedArray::has_hosted() const {
    return std::ranges::any_of(parts_, &Part::hosted);
}

int64_t PlacedArray::largest_hosted() const {
    int64_t largest = 0;
    for (const Part& part : parts_)
        if (part.hosted) largest = std::max(largest, part.numbers.size());
    return largest;
}

Tensor PlacedArray::slice(int64_t begin, int64_t end) const {
    const Part& part = part_of(begin);
    return part.values.slice(0, begin - part.numbers.begin, end - part.numbers.begin);
}

Tensor PlacedArray::whole() const {
    if (parts_.empty()) return {};
    require(parts_.size() == 1, "an array that is in {} parts", parts_.size());
    return parts_.front().values;
}

}  // namespace colonnade
