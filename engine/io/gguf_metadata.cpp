#include "engine/io/gguf_metadata.h"

#include <bit>
#include <cstdlib>
#include <cstring>

#include "engine/device/error.h"

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read as they are in the file");

namespace colonnade {
namespace {

struct KindInfo {
    const char* name;
    uint64_t bytes;  // of one value; 0: not of a fixed size
};
constexpr KindInfo kinds[gguf_kinds] = {{"u8", 1},  {"i8", 1},  {"u16", 2},  {"i16", 2},    {"u32", 4},
                                        {"i32", 4}, {"f32", 4}, {"bool", 1}, {"string", 0}, {"array", 0},
                                        {"u64", 8}, {"i64", 8}, {"f64", 8}};

bool is_integer(GgufKind kind) {
    return kind <= GgufKind::i32 || kind == GgufKind::u64 || kind == GgufKind::i64;
}
bool is_number(GgufKind kind) {
    return is_integer(kind) || kind == GgufKind::f32 || kind == GgufKind::f64;
}

std::string kind_text(const GgufValue& value) {
    const char* name = name_of(value.kind);
    return value.array ? fmt::format("an array of {} {}", value.count, name) : std::string(name);
}

template <typename T>
T load(std::string_view from, size_t at = 0) {
    T value;
    std::memcpy(&value, from.data() + at, sizeof value);
    return value;
}

// Calls use(number) with element i of a value of a number type, in its own type.
template <typename Use>
auto with_number(const GgufValue& value, uint64_t i, Use&& use) {
    const auto at = [&]<typename T>(T) { return use(load<T>(value.data, i * sizeof(T))); };
    switch (value.kind) {
        case GgufKind::u8:
            return at(uint8_t{});
        case GgufKind::i8:
            return at(int8_t{});
        case GgufKind::u16:
            return at(uint16_t{});
        case GgufKind::i16:
            return at(int16_t{});
        case GgufKind::u32:
            return at(uint32_t{});
        case GgufKind::i32:
            return at(int32_t{});
        case GgufKind::u64:
            return at(uint64_t{});
        case GgufKind::i64:
            return at(int64_t{});
        case GgufKind::f32:
            return at(float{});
        default:
            return at(double{});
    }
}

double number_at(const GgufValue& value, uint64_t i) {
    return with_number(value, i, [](auto x) { return static_cast<double>(x); });
}

// The values of an array, or the single value, each by read(value, i).
template <typename T, typename Read>
std::optional<std::vector<T>> all_of(const GgufValue* value, Read&& read) {
    if (!value) return {};
    std::vector<T> values(value->count);
    for (uint64_t i = 0; i < value->count; ++i) values[i] = read(*value, i);
    return values;
}

}  // namespace

const char* name_of(GgufKind kind) {
    return kinds[static_cast<size_t>(kind)].name;
}

uint64_t bytes_of(GgufKind kind) {
    return kinds[static_cast<size_t>(kind)].bytes;
}

GgufMetadata::GgufMetadata(std::string path, std::string header, const std::vector<GgufPair>& pairs)
    : path_(std::move(path)), header_(std::make_unique<const std::string>(std::move(header))) {
    const std::string_view bytes = *header_;
    for (const GgufPair& p : pairs) {
        GgufValue value = p.value;
        value.data = bytes.substr(p.begin, p.end - p.begin);
        const std::string_view key = bytes.substr(p.key_begin, p.key_end - p.key_begin);
        if (!values_.emplace(key, value).second) fail(Exit::data, "{}: duplicate key '{}'", path_, key);
    }
}

const GgufValue* GgufMetadata::find(std::string_view key, bool array, bool (*fits)(GgufKind),
                                    const char* expected) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return nullptr;
    const GgufValue& value = found->second;
    if (value.array != array || !fits(value.kind))
        fail(Exit::data, "{}: key '{}' is {}, expected {}", path_, key, kind_text(value), expected);
    return &value;
}

std::optional<int64_t> GgufMetadata::integer(std::string_view key) const {
    const GgufValue* value = find(key, false, is_integer, "an integer");
    if (!value) return {};
    if (value->kind == GgufKind::u64 && load<uint64_t>(value->data) > static_cast<uint64_t>(INT64_MAX))
        fail(Exit::data, "{}: key '{}' is {}, expected at most 2^63 - 1", path_, key, load<uint64_t>(value->data));
    return with_number(*value, 0, [](auto x) { return static_cast<int64_t>(x); });
}

std::optional<double> GgufMetadata::number(std::string_view key) const {
    const GgufValue* value = find(key, false, is_number, "a number");
    if (!value) return {};
    return number_at(*value, 0);
}

std::optional<double> GgufMetadata::shortest_number(std::string_view key) const {
    const GgufValue* value = find(key, false, is_number, "a number");
    if (!value) return {};
    if (value->kind != GgufKind::f32) return number_at(*value, 0);
    return std::strtod(fmt::format("{}", load<float>(value->data)).c_str(), nullptr);
}

std::optional<bool> GgufMetadata::boolean(std::string_view key) const {
    const GgufValue* value = find(
        key, false, [](GgufKind k) { return k == GgufKind::boolean; }, "a bool");
    if (!value) return {};
    return value->data[0] != 0;
}

std::optional<std::string> GgufMetadata::text(std::string_view key) const {
    const GgufValue* value = find(
        key, false, [](GgufKind k) { return k == GgufKind::string; }, "a string");
    if (!value) return {};
    return std::string(value->data.substr(sizeof(uint64_t)));
}

std::optional<std::vector<int64_t>> GgufMetadata::integers(std::string_view key) const {
    const GgufValue* value = find(key, true, is_integer, "an array of integers");
    return all_of<int64_t>(value, [&](const GgufValue& v, uint64_t i) {
        if (v.kind == GgufKind::u64 && load<uint64_t>(v.data, 8 * i) > static_cast<uint64_t>(INT64_MAX))
            fail(Exit::data, "{}: key '{}' holds {}, expected at most 2^63 - 1", path_, key,
                 load<uint64_t>(v.data, 8 * i));
        return with_number(v, i, [](auto x) { return static_cast<int64_t>(x); });
    });
}

std::optional<std::vector<double>> GgufMetadata::numbers(std::string_view key) const {
    return all_of<double>(find(key, true, is_number, "an array of numbers"), number_at);
}

std::optional<std::vector<std::string_view>> GgufMetadata::texts(std::string_view key) const {
    size_t at = 0;
    return all_of<std::string_view>(
        find(
            key, true, [](GgufKind k) { return k == GgufKind::string; }, "an array of strings"),
        [&](const GgufValue& v, uint64_t) {
            const auto length = static_cast<size_t>(load<uint64_t>(v.data, at));
            const std::string_view text = v.data.substr(at + sizeof length, length);
            at += sizeof length + length;
            return text;
        });
}

}  // namespace colonnade
