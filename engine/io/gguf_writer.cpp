#include "engine/io/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/device/error.h"

static_assert(std::endian::native == std::endian::little, "GGUF numbers are written as they are in memory");

namespace colonnade {
namespace {

constexpr uint64_t alignment = 32;
constexpr size_t name_bytes = 64;                       // of llama.cpp, with the zero at the end
constexpr int64_t written_elements = int64_t{1} << 22;  // a multiple of every block
constexpr int64_t small = int64_t{1} << 16;             // elements that one thread encodes sooner than several

template <typename T>
void append(std::string& bytes, const T& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& bytes, std::string_view text) {
    append(bytes, uint64_t{text.size()});
    bytes += text;
}

template <typename T>
void append_all(std::string& bytes, const std::vector<T>& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

uint64_t padding(uint64_t bytes) {
    return (alignment - bytes % alignment) % alignment;
}

int64_t elements_of(const GgufTensor& tensor) {
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    return elements;
}

uint64_t bytes_of(const GgufTensor& tensor) {
    return static_cast<uint64_t>(elements_of(tensor) / tensor.type->block) * tensor.type->bytes;
}

std::string header(const GgufPairs& pairs, const std::vector<GgufTensor>& tensors) {
    std::string bytes = "GGUF";
    append(bytes, uint32_t{3});
    append(bytes, uint64_t{tensors.size()});
    append(bytes, pairs.count());
    bytes += pairs.bytes();
    uint64_t offset = 0;
    for (const GgufTensor& t : tensors) {
        require(t.type && t.type->encode && !t.shape.empty() && t.shape.back() % t.type->block == 0 &&
                    t.name.size() < name_bytes,
                "tensor '{}' cannot be written to a GGUF file", t.name);
        append_text(bytes, t.name);
        append(bytes, static_cast<uint32_t>(t.shape.size()));
        for (auto size = t.shape.rbegin(); size != t.shape.rend(); ++size) append(bytes, static_cast<uint64_t>(*size));
        append(bytes, t.type->id);
        append(bytes, offset);
        offset += bytes_of(t) + padding(bytes_of(t));
    }
    bytes.append(padding(bytes.size()), '\0');
    return bytes;
}

// Of plain types f16 alone has a limit, and an infinite element stays one there; blocks hold finite elements alone.
void check_limit(const GgufTensor& tensor, const float* from, int64_t count) {
    const float limit = tensor.type->limit;
    if (std::isinf(limit)) return;
    const bool keeps_infinite = tensor.type->plain;
    int64_t beyond = 0;
    float largest = 0;
#pragma omp parallel for schedule(static) reduction(+ : beyond) reduction(max : largest) if (count > small)
    for (int64_t i = 0; i < count; ++i) {
        const float magnitude = std::abs(from[i]);
        if (magnitude < limit || (keeps_infinite && !(magnitude < INFINITY))) continue;
        ++beyond;
        largest = std::max(largest, std::isnan(magnitude) ? INFINITY : magnitude);
    }
    if (beyond > 0)
        fail(
            Exit::numerics,
            "tensor '{}': {} elements are beyond {}, which ends at {:g}; the largest is {:g}; give bfloat16 or float32",
            tensor.name, beyond, tensor.type->name, tensor.type->plain ? 65504.0 : 127 * 65504.0, largest);
}

}  // namespace

// --- Pairs -----------------------------------------------------------------------------------------------------------

void GgufPairs::begin(std::string_view key, GgufKind kind) {
    require(keys_.emplace(key).second, "key '{}' is written twice", key);
    append_text(bytes_, key);
    append(bytes_, kind);
}

void GgufPairs::begin_array(std::string_view key, GgufKind kind, size_t count) {
    begin(key, GgufKind::array);
    append(bytes_, kind);
    append(bytes_, uint64_t{count});
}

void GgufPairs::integer(std::string_view key, int64_t value) {
    require(value >= 0 && value <= UINT32_MAX, "key '{}' is {}, which is no u32", key, value);
    begin(key, GgufKind::u32);
    append(bytes_, static_cast<uint32_t>(value));
}

void GgufPairs::number(std::string_view key, double value) {
    begin(key, GgufKind::f32);
    append(bytes_, static_cast<float>(value));
}

void GgufPairs::boolean(std::string_view key, bool value) {
    begin(key, GgufKind::boolean);
    append(bytes_, static_cast<uint8_t>(value));
}

void GgufPairs::text(std::string_view key, std::string_view value) {
    begin(key, GgufKind::string);
    append_text(bytes_, value);
}

void GgufPairs::integers(std::string_view key, const std::vector<int32_t>& values) {
    begin_array(key, GgufKind::i32, values.size());
    append_all(bytes_, values);
}

void GgufPairs::numbers(std::string_view key, const std::vector<float>& values) {
    begin_array(key, GgufKind::f32, values.size());
    append_all(bytes_, values);
}

void GgufPairs::texts(std::string_view key, const std::vector<std::string>& values) {
    begin_array(key, GgufKind::string, values.size());
    for (const std::string& value : values) append_text(bytes_, value);
}

void GgufPairs::copy(std::string_view key, const GgufValue& value) {
    if (value.array)
        begin_array(key, value.kind, value.count);
    else
        begin(key, value.kind);
    bytes_ += value.data;
}

// --- The file --------------------------------------------------------------------------------------------------------

GgufWriter::GgufWriter(const std::string& path, const GgufPairs& pairs, std::vector<GgufTensor> tensors)
    : path_(path), tensors_(std::move(tensors)), commit_(path), file_(commit_.temporary()) {
    file_.write(header(pairs, tensors_));
}

void GgufWriter::write(const Tensor& elements) {
    require(next_ < tensors_.size(), "{}: more tensors than planned", path_);
    const GgufTensor& tensor = tensors_[next_++];
    require(elements.contiguous() && elements.device == Device::cpu && elements.dtype == DType::f32 &&
                elements.numel() == elements_of(tensor),
            "tensor '{}' cannot be written from {}", tensor.name, elements);
    const GgufType& type = *tensor.type;
    const float* from = elements.as<float>();
    check_limit(tensor, from, elements.numel());
    for (int64_t begin = 0; begin < elements.numel(); begin += written_elements) {
        const int64_t blocks = std::min(written_elements, elements.numel() - begin) / type.block;
        encoded_.resize(static_cast<size_t>(blocks) * type.bytes);
        constexpr int64_t step = 1 << 10;  // blocks that a thread takes at a time
#pragma omp parallel for schedule(static) if (blocks * type.block > small)
        for (int64_t b = 0; b < blocks; b += step)
            type.encode(from + begin + b * type.block, std::min(step, blocks - b),
                        encoded_.data() + static_cast<size_t>(b) * type.bytes);
        file_.write(encoded_.data(), encoded_.size());
    }
    constexpr char zeros[alignment] = {};
    file_.write(zeros, padding(bytes_of(tensor)));
}

void GgufWriter::commit() {
    require(next_ == tensors_.size(), "{}: {} of {} tensors are written", path_, next_, tensors_.size());
    file_.close();
    commit_.commit();
}

}  // namespace colonnade
