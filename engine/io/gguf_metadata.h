#pragma once
// The metadata of a GGUF file: typed values by key, such as "llama.block_count" and "tokenizer.ggml.tokens".

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// The types of values, in the order of their numbers in the file.
enum class GgufKind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

constexpr uint32_t gguf_kinds = 13;
const char* name_of(GgufKind kind);
uint64_t bytes_of(GgufKind kind);  ///< bytes of a value; 0: not of a fixed size

/// A value, or an array of them, as a span of the header.
struct GgufValue {
    GgufKind kind = GgufKind::u8;  ///< of the value, or of each element of an array; never `array` itself
    bool array = false;
    uint64_t count = 1;     ///< elements; 1 for a single value
    std::string_view data;  ///< count numbers, or count strings with their lengths (u64) in front
};

/// A pair while its header is read, as offsets of the header's bytes.
struct GgufPair {
    size_t key_begin, key_end, begin, end;
    GgufValue value;  ///< without data
};

/// The pairs of a file. Every accessor returns nothing if the key is absent, and throws Exit::data, naming file, key
/// and both types, if the value is of another type. The views stay valid as long as the metadata.
class GgufMetadata {
  public:
    GgufMetadata() = default;
    /// `header`: the bytes that the pairs are spans of. Throws Exit::data if two pairs have the same key.
    GgufMetadata(std::string path, std::string header, const std::vector<GgufPair>& pairs);

    bool has(std::string_view key) const { return values_.contains(key); }
    const std::map<std::string_view, GgufValue>& values() const { return values_; }

    std::optional<int64_t> integer(std::string_view key) const;  ///< any integer type, at most 2^63 - 1
    std::optional<double> number(std::string_view key) const;    ///< any integer or float type
    /// The f32 value as the shortest decimal number that rounds to it: 1e-05 rather than 9.99999974737875e-06.
    std::optional<double> shortest_number(std::string_view key) const;
    std::optional<bool> boolean(std::string_view key) const;
    std::optional<std::string> text(std::string_view key) const;

    std::optional<std::vector<int64_t>> integers(std::string_view key) const;
    std::optional<std::vector<double>> numbers(std::string_view key) const;
    std::optional<std::vector<std::string_view>> texts(std::string_view key) const;

  private:
    const GgufValue* find(std::string_view key, bool array, bool (*fits)(GgufKind), const char* expected) const;

    std::string path_;
    std::unique_ptr<const std::string> header_;  // keys and values are views of it
    std::map<std::string_view, GgufValue> values_;
};

}  // namespace colonnade
