#pragma once
// Mutations of files for fuzzing: bytes, pieces, and for JSON its structure. The same seed gives the same mutation.

#include <random>
#include <string>
#include <vector>

#include "engine/io/json.h"

namespace colonnade {

using Random = std::mt19937_64;

inline size_t below(Random& random, size_t n) {
    return n == 0 ? 0 : random() % n;
}

/// Changes some bytes: single ones, numbers of 2 to 8 bytes, pieces dropped, repeated, moved or taken from `other`.
inline std::string mutate_bytes(std::string bytes, const std::string& other, Random& random) {
    constexpr uint64_t numbers[] = {0,
                                    1,
                                    2,
                                    0x7F,
                                    0x80,
                                    0xFF,
                                    0x7FFF,
                                    0xFFFF,
                                    0x7FFFFFFF,
                                    0x80000000,
                                    0xFFFFFFFF,
                                    0x7FFFFFFFFFFFFFFF,
                                    0xFFFFFFFFFFFFFFFF,
                                    1ull << 40};
    for (size_t n = 1 + below(random, 4); n > 0; --n) {
        const size_t at = below(random, bytes.size() + 1),
                     length = below(random, std::min<size_t>(bytes.size() - at, 64) + 1);
        switch (below(random, 8)) {
            case 0:
                if (at < bytes.size()) bytes[at] = static_cast<char>(random());
                break;
            case 1:
                if (at < bytes.size()) bytes[at] ^= static_cast<char>(1 << below(random, 8));
                break;
            case 2: {
                const uint64_t number = numbers[below(random, std::size(numbers))];
                const size_t size = size_t{1} << below(random, 4);
                if (at + size <= bytes.size()) bytes.replace(at, size, reinterpret_cast<const char*>(&number), size);
                break;
            }
            case 3:
                bytes.erase(at, length);
                break;
            case 4:
                bytes.insert(at, bytes.substr(at, length));
                break;
            case 5: {
                const size_t from = below(random, other.size() + 1);
                bytes.insert(at, other.substr(from, 1 + below(random, 200)));
                break;
            }
            case 6:
                bytes.resize(at);
                break;
            default:
                bytes.insert(at, std::string(1 + below(random, 300), static_cast<char>(random())));
        }
    }
    return bytes;
}

/// One value of a JSON text becomes another one, of any type; keys are dropped, doubled and renamed.
inline void mutate_value(Json& json, Random& random) {
    Json* at = &json;
    while (at->is_structured() && !at->empty() && below(random, 5) > 0) {
        auto entry = at->begin();
        std::advance(entry, static_cast<std::ptrdiff_t>(below(random, std::min<size_t>(at->size(), 1000))));
        at = &*entry;
    }
    const Json values[] = {nullptr,
                           true,
                           -1,
                           0,
                           1e308,
                           1u << 31,
                           INT64_MAX,
                           UINT64_MAX,
                           "",
                           "x",
                           std::string(5000, 'a'),
                           Json::array(),
                           Json::object(),
                           Json::array({1, "a", nullptr}),
                           "\xC3\xA9\u2581</s><|im_end|>",
                           0.5};
    switch (below(random, 4)) {
        case 0:
            if (at->is_object() && !at->empty()) {
                at->erase(at->begin());
                break;
            }
            [[fallthrough]];
        case 1:
            if (at->is_array() && !at->empty()) {
                at->push_back((*at)[below(random, at->size())]);
                break;
            }
            [[fallthrough]];
        case 2: {
            if (!at->is_number_integer()) break;
            const auto number = static_cast<int32_t>(at->get<int64_t>());
            *at = below(random, 2) ? int64_t{number} * 1000003 : -int64_t{number} - 1;
            break;
        }
        default:
            *at = values[below(random, std::size(values))];
    }
}

}  // namespace colonnade
