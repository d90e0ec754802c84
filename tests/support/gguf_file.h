#pragma once
// GGUF files written by hand: any metadata, and one tensor, token_embd.weight [1, 32] of zeros.

#include <string>
#include <vector>

#include "engine/io/gguf_metadata.h"

namespace colonnade {

template <typename T>
std::string raw_bytes(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
}
inline std::string counted(std::string_view text) {
    return raw_bytes(uint64_t{text.size()}) + std::string(text);
}

struct GgufTextPair {
    std::string key;
    std::string value;  ///< with its type in front
};
template <typename T>
GgufTextPair gguf_pair(const std::string& key, GgufKind kind, T value) {
    return {key, raw_bytes(kind) + raw_bytes(value)};
}
inline GgufTextPair gguf_pair(const std::string& key, const std::string& text) {
    return {key, raw_bytes(GgufKind::string) + counted(text)};
}
template <typename T>
GgufTextPair gguf_pair(const std::string& key, GgufKind kind, const std::vector<T>& values) {
    std::string bytes = raw_bytes(GgufKind::array) + raw_bytes(kind) + raw_bytes(uint64_t{values.size()});
    for (const T& value : values)
        if constexpr (std::is_same_v<T, std::string>)
            bytes += counted(value);
        else
            bytes += raw_bytes(value);
    return {key, bytes};
}

inline std::string gguf_file(const std::vector<GgufTextPair>& pairs) {
    std::string file = "GGUF" + raw_bytes(uint32_t{3}) + raw_bytes(uint64_t{1}) + raw_bytes(uint64_t{pairs.size()});
    for (const GgufTextPair& p : pairs) file += counted(p.key) + p.value;
    file += counted("token_embd.weight") + raw_bytes(uint32_t{2}) + raw_bytes(uint64_t{32}) + raw_bytes(uint64_t{1}) +
            raw_bytes(uint32_t{0}) + raw_bytes(uint64_t{0});
    file.resize((file.size() + 31) / 32 * 32 + 128);
    return file;
}

}  // namespace colonnade
