#include "train/step/state_array.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/device/host_transfers.h"

namespace colonnade {
namespace {

/// A tensor in host memory: itself, or its bytes downloaded.
struct OnHost {
    OnHost(Gpu* gpu, const Tensor& t) : tensor(t) {
        if (t.device == Device::cpu) return;
        bytes.resize(t.bytes());
        gpu->download(bytes.data(), t);
        tensor.data = bytes.data();
        tensor.device = Device::cpu;
    }
    Tensor tensor;
    std::vector<char> bytes{};
};

/// Calls `apply` with an index range of the calls' own thread.
template <typename Apply>
void in_parallel_ranges(int64_t count, Apply&& apply) {
    constexpr int64_t piece = 1 << 16;
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += piece) apply(begin, std::min(count, begin + piece));
}

void widen(const Tensor& to, const OnHost& values) {
    const auto* from = values.tensor.as<bf16>();
    float* out = to.as<float>();
    in_parallel_ranges(to.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = float_from_bf16(from[i].bits);
    });
}

void join(const Tensor& to, const OnHost& top, const OnHost& low) {
    const auto* upper = top.tensor.as<bf16>();
    const auto* lower = low.tensor.as<int16_t>();
    float* out = to.as<float>();
    in_parallel_ranges(to.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = std::bit_cast<float>(joined_float(upper[i].bits, lower[i]));
    });
}

/// Fills a tensor in either memory with values computed from f32 numbers: `value` of each.
template <typename T, typename Value>
void fill_from(Gpu* gpu, const Tensor& to, const float* from, Value&& value) {
    const auto fill = [&](void* out, int64_t first, int64_t count) {
        in_parallel_ranges(count, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) static_cast<T*>(out)[i] = value(from[first + i]);
        });
    };
    if (to.device == Device::cpu)
        fill(to.data, 0, to.numel());
    else
        gpu->upload(to, fill);
}

uint16_t top_of(float x) {
    return split_float(std::bit_cast<uint32_t>(x)).top;
}

}  // namespace

int64_t StateArray::size() const {
    int64_t count = 0;
    for (const StatePart& part : parts) count += part.values.numel();
    return count;
}

size_t StateArray::bytes() const {
    size_t sum = 0;
    for (const StatePart& part : parts)
        sum += part.values.bytes() + static_cast<size_t>(part.top.rank == 0 ? 0 : part.top.bytes());
    return sum;
}

int64_t StateArray::index_of(int64_t element) const {
    if (ranges.empty()) return (element + elements - 1) / elements;
    int64_t before = 0;
    for (const Range& range : ranges) before += std::clamp<int64_t>(element - range.begin, 0, range.size());
    return before;
}

/// Calls `apply` with every part that has some of the numbers, cut to them, and the index of its first one among them.
template <typename Apply>
static void for_each_part(const StateArray& array, const Range& numbers, Apply&& apply) {
    int64_t first = 0;
    for (const StatePart& part : array.parts) {
        const int64_t begin = std::max(numbers.begin - first, int64_t{0}),
                      end = std::min(numbers.end - first, part.values.numel());
        if (begin < end)
            apply(StatePart{part.values.slice(0, begin, end),
                            part.top.rank == 0 ? Tensor() : part.top.slice(0, begin, end)},
                  first + begin - numbers.begin);
        first += part.values.numel();
    }
}

HostCopy StateArray::read(Gpu* gpu, const Range& numbers) const {
    if (gpu) gpu->synchronize();  // numbers may be on their way to host memory
    std::vector<std::pair<StatePart, int64_t>> found;
    for_each_part(*this, numbers, [&](const StatePart& part, int64_t at) { found.emplace_back(part, at); });
    if (found.size() == 1 && found[0].first.values.device == Device::cpu && found[0].first.values.dtype == dtype)
        return HostCopy::of(nullptr, found[0].first.values);
    const HostCopy copy = HostCopy::blank(dtype, numbers.size());
    for (const auto& [part, at] : found) {
        const Tensor to = copy.tensor().slice(0, at, at + part.values.numel());
        const OnHost values(gpu, part.values);
        if (part.top.rank > 0)
            join(to, OnHost(gpu, part.top), values);
        else if (part.values.dtype == DType::bf16)
            widen(to, values);
        else
            copy_host_memory(to, values.tensor);
    }
    return copy;
}

void StateArray::write(Gpu* gpu, int64_t begin, const Tensor& from) const {
    require(from.device == Device::cpu && from.dtype == dtype, "{} into an array of {}", from, dtype);
    if (gpu) gpu->synchronize();
    for_each_part(*this, {begin, begin + from.numel()}, [&](const StatePart& part, int64_t at) {
        const Tensor numbers = from.slice(0, at, at + part.values.numel());
        if (part.top.rank > 0) {
            fill_from<uint16_t>(gpu, part.top, numbers.as<float>(), top_of);
            fill_from<int16_t>(gpu, part.values, numbers.as<float>(),
                               [](float x) { return split_float(std::bit_cast<uint32_t>(x)).low; });
        } else if (part.values.dtype == DType::bf16) {
            fill_from<uint16_t>(gpu, part.values, numbers.as<float>(), top_of);
        } else if (part.values.device == Device::cpu) {
            copy_host_memory(part.values, numbers);
        } else {
            gpu->upload(part.values, numbers.data);
        }
    });
}

}  // namespace colonnade
