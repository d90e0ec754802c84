#include "data/rows/files/parquet/encodings.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace colonnade {
namespace {

/// Takes bytes and little-endian numbers off the front of a page; after a failure it stays failed.
class Bytes {
  public:
    explicit Bytes(std::string_view bytes) : left_(bytes) {}

    std::string_view take(uint64_t size) {
        if (failed_ || size > left_.size()) return failed_ = true, std::string_view();
        const std::string_view taken = left_.substr(0, size);
        left_.remove_prefix(size);
        return taken;
    }
    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const std::string_view next = take(1);
            if (failed_) return 0;
            value |= static_cast<uint64_t>(next[0] & 127) << shift;
            if (!(next[0] & 128)) return value;
        }
        return failed_ = true, 0;
    }
    uint64_t zigzag() {
        const uint64_t value = varint();
        return value >> 1 ^ (~(value & 1) + 1);
    }
    std::string_view left() const { return left_; }
    bool failed() const { return failed_; }

  private:
    std::string_view left_;
    bool failed_ = false;
};

/// Value `index` of a run of values of `width` bits, up to 64, the lowest bit first.
uint64_t packed_value(std::string_view bytes, size_t index, int width) {
    if (width == 0) return 0;
    const size_t bit = index * static_cast<size_t>(width), byte = bit >> 3, shift = bit & 7;
    uint64_t low = 0;
    if (bytes.size() - byte >= sizeof low)
        std::memcpy(&low, bytes.data() + byte, sizeof low);
    else
        std::memcpy(&low, bytes.data() + byte, bytes.size() - byte);
    uint64_t value = low >> shift;
    if (shift + static_cast<size_t>(width) > 64)
        value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[byte + 8])) << (64 - shift);
    return value & (~uint64_t{0} >> (64 - width));
}

/// DELTA_BINARY_PACKED. Sums wrap around, as the format wants. Returns what follows in `rest`.
bool read_deltas(std::string_view bytes, size_t count, std::vector<uint64_t>& out, std::string_view& rest) {
    Bytes in(bytes);
    const uint64_t block = in.varint(), miniblocks = in.varint(), total = in.varint();
    uint64_t value = in.zigzag();
    if (in.failed() || total != count || miniblocks == 0 || block == 0 || block % miniblocks || block > (1 << 24) ||
        block / miniblocks % 8)
        return false;
    out.clear();
    out.reserve(count);
    if (count > 0) out.push_back(value);
    while (out.size() < count) {
        const uint64_t least = in.zigzag();
        const std::string_view widths = in.take(miniblocks);
        if (in.failed()) return false;
        for (size_t m = 0; m < miniblocks && out.size() < count; ++m) {
            const int width = static_cast<uint8_t>(widths[m]);
            const size_t values = block / miniblocks;
            const std::string_view packed = in.take(values / 8 * static_cast<size_t>(width));
            if (in.failed() || width > 64) return false;
            for (size_t i = 0; i < std::min(values, count) && out.size() < count; ++i)
                out.push_back(value += least + packed_value(packed, i, width));
        }
    }
    rest = in.left();
    return true;
}

bool read_lengths_and_texts(std::string_view bytes, size_t count, std::vector<std::string_view>& out) {
    std::vector<uint64_t> lengths;
    std::string_view rest;
    if (!read_deltas(bytes, count, lengths, rest)) return false;
    Bytes in(rest);
    out.clear();
    out.reserve(count);
    for (const uint64_t length : lengths) out.push_back(in.take(length));
    return !in.failed();
}

/// Every text begins with a part of the text before it.
bool read_delta_texts(std::string_view bytes, size_t count, ParquetValues& out) {
    std::vector<uint64_t> prefixes;
    std::vector<std::string_view> suffixes;
    std::string_view rest;
    if (!read_deltas(bytes, count, prefixes, rest) || !read_lengths_and_texts(rest, count, suffixes)) return false;
    size_t total = 0, before = 0;
    for (size_t i = 0; i < count; ++i) {
        if (prefixes[i] > before) return false;
        before = prefixes[i] + suffixes[i].size();
        if ((total += before) > parquet_page_limit) return false;
    }
    out.made.clear();
    out.made.reserve(total);  // so that the texts before stay in their place
    out.texts.clear();
    out.texts.reserve(count);
    for (size_t i = 0; i < count; ++i) {
        const size_t begin = out.made.size();
        if (prefixes[i] > 0) out.made.append(out.texts.back().substr(0, prefixes[i]));
        out.made.append(suffixes[i]);
        out.texts.push_back(std::string_view(out.made).substr(begin));
    }
    return true;
}

bool read_plain_texts(std::string_view bytes, size_t count, std::vector<std::string_view>& out) {
    out.clear();
    out.reserve(std::min(count, bytes.size() / sizeof(uint32_t)));
    Bytes in(bytes);
    for (size_t i = 0; i < count; ++i) {
        const std::string_view size = in.take(sizeof(uint32_t));
        if (in.failed()) return false;
        uint32_t length = 0;
        std::memcpy(&length, size.data(), sizeof length);
        out.push_back(in.take(length));
    }
    return !in.failed();
}

size_t width_of(ParquetType type) {
    return type == ParquetType::int32 || type == ParquetType::real32 ? 4 : 8;
}

uint64_t number_of(ParquetType type, const char* at) {
    uint32_t small = 0;
    uint64_t large = 0;
    if (width_of(type) == 8) return std::memcpy(&large, at, sizeof large), large;
    std::memcpy(&small, at, sizeof small);
    if (type == ParquetType::real32) return std::bit_cast<uint64_t>(static_cast<double>(std::bit_cast<float>(small)));
    return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(small)));
}

bool read_plain_numbers(ParquetType type, std::string_view bytes, size_t count, std::vector<uint64_t>& out) {
    const size_t width = width_of(type);
    if (bytes.size() / width < count) return false;
    out.resize(count);
    for (size_t i = 0; i < count; ++i) out[i] = number_of(type, bytes.data() + i * width);
    return true;
}

/// Byte b of all values, for b = 0, 1, ...
bool read_split_numbers(ParquetType type, std::string_view bytes, size_t count, std::vector<uint64_t>& out) {
    const size_t width = width_of(type);
    if (bytes.size() % width || bytes.size() / width != count) return false;
    out.resize(count);
    for (size_t i = 0; i < count; ++i) {
        char number[8];
        for (size_t b = 0; b < width; ++b) number[b] = bytes[b * count + i];
        out[i] = number_of(type, number);
    }
    return true;
}

bool read_booleans(std::string_view bytes, size_t count, std::vector<uint64_t>& out) {
    if (bytes.size() < (count + 7) / 8) return false;
    out.resize(count);
    for (size_t i = 0; i < count; ++i) out[i] = packed_value(bytes, i, 1);
    return true;
}

/// Booleans by RLE: a u32 length, then the runs.
bool read_rle_booleans(std::string_view bytes, size_t count, std::vector<uint64_t>& out) {
    if (bytes.size() < sizeof(uint32_t)) return false;
    uint32_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    bytes.remove_prefix(sizeof length);
    return length <= bytes.size() && read_rle(bytes.substr(0, length), 1, count, out);
}

}  // namespace

const char* parquet_encoding_name(int64_t encoding) {
    constexpr const char* names[] = {"PLAIN",
                                     "1",
                                     "PLAIN_DICTIONARY",
                                     "RLE",
                                     "BIT_PACKED",
                                     "DELTA_BINARY_PACKED",
                                     "DELTA_LENGTH_BYTE_ARRAY",
                                     "DELTA_BYTE_ARRAY",
                                     "RLE_DICTIONARY",
                                     "BYTE_STREAM_SPLIT"};
    return encoding >= 0 && encoding < 10 ? names[encoding] : "of an unknown number";
}

template <typename T>
bool read_rle(std::string_view bytes, int width, size_t count, std::vector<T>& out) {
    if (width < 0 || width > 32) return false;
    out.resize(count);
    Bytes in(bytes);
    for (size_t filled = 0; filled < count;) {
        const uint64_t head = in.varint();
        if (in.failed() || head >> 1 == 0) return false;
        if (head & 1) {  // groups of 8 bit-packed values; the last group may be cut off
            const size_t values = std::min<uint64_t>((head >> 1) * 8, count - filled);
            const uint64_t size = std::min<uint64_t>((head >> 1) * static_cast<uint64_t>(width), in.left().size());
            const std::string_view packed = in.take(size);
            if (head >> 1 > bytes.size() * 8 || packed.size() * 8 < values * static_cast<size_t>(width)) return false;
            for (size_t i = 0; i < values; ++i) out[filled++] = static_cast<T>(packed_value(packed, i, width));
        } else {
            const size_t values = std::min<uint64_t>(head >> 1, count - filled);
            const std::string_view number = in.take(static_cast<uint64_t>(width + 7) / 8);
            if (in.failed()) return false;
            uint32_t value = 0;
            std::memcpy(&value, number.data(), number.size());
            std::fill_n(out.begin() + static_cast<int64_t>(filled), values, static_cast<T>(value));
            filled += values;
        }
    }
    return true;
}
template bool read_rle(std::string_view, int, size_t, std::vector<uint8_t>&);
template bool read_rle(std::string_view, int, size_t, std::vector<uint32_t>&);
template bool read_rle(std::string_view, int, size_t, std::vector<uint64_t>&);

bool read_parquet_values(ParquetEncoding encoding, ParquetType type, std::string_view bytes, size_t count,
                         ParquetValues& out) {
    out.bits.clear();
    out.texts.clear();
    if (count == 0) return true;  // for a page of nulls, some writers leave out the header of the encoding
    const bool text = type == ParquetType::bytes, boolean = type == ParquetType::boolean;
    const bool integer = type == ParquetType::int32 || type == ParquetType::int64;
    std::string_view rest;
    switch (encoding) {
        case ParquetEncoding::plain:
            if (text) return read_plain_texts(bytes, count, out.texts);
            return boolean ? read_booleans(bytes, count, out.bits) : read_plain_numbers(type, bytes, count, out.bits);
        case ParquetEncoding::rle:
            return boolean && read_rle_booleans(bytes, count, out.bits);
        case ParquetEncoding::delta_binary_packed:
            if (!integer || !read_deltas(bytes, count, out.bits, rest)) return false;
            if (type == ParquetType::int32)
                for (uint64_t& value : out.bits)
                    value = static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value)));
            return true;
        case ParquetEncoding::delta_length_byte_array:
            return text && read_lengths_and_texts(bytes, count, out.texts);
        case ParquetEncoding::delta_byte_array:
            return text && read_delta_texts(bytes, count, out);
        case ParquetEncoding::byte_stream_split:
            return !text && !boolean && read_split_numbers(type, bytes, count, out.bits);
        default:
            return false;
    }
}

}  // namespace colonnade
