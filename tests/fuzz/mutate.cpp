#include "tests/fuzz/mutate.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr uint64_t odd_numbers[] = {0,
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

/// The bounds of words: runs of letters and digits, and single other characters.
std::vector<size_t> word_bounds(const std::string& text) {
    const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80); };
    std::vector<size_t> bounds = {0};
    for (size_t i = 1; i < text.size(); ++i)
        if (!is_word(text[i]) || !is_word(text[i - 1])) bounds.push_back(i);
    bounds.push_back(text.size());
    return bounds;
}

std::string repeated(const std::string& text, size_t times) {
    std::string result;
    for (size_t i = 0; i < times; ++i) result += text;
    return result;
}

const Json& odd_value(Random& random) {
    static const Json values[] = {nullptr,
                                  true,
                                  -1,
                                  0,
                                  1e308,
                                  1e19,
                                  1u << 31,
                                  INT64_MAX,
                                  INT64_MIN,
                                  UINT64_MAX,
                                  "",
                                  "x",
                                  std::string(5000, 'a'),
                                  Json::array(),
                                  Json::object(),
                                  Json::array({1, "a", nullptr}),
                                  "\xC3\xA9\u2581</s><|im_end|>",
                                  "../../etc/passwd",
                                  std::string("a\0b", 3),
                                  0.5};
    return values[below(random, std::size(values))];
}

void mutate_value(Json& json, Random& random) {
    Json* at = &json;
    Json* parent = nullptr;
    while (at->is_structured() && !at->empty() && below(random, 5) > 0) {
        auto entry = at->begin();
        std::advance(entry, static_cast<std::ptrdiff_t>(below(random, std::min<size_t>(at->size(), 1000))));
        parent = at;
        at = &*entry;
    }
    switch (below(random, 7)) {
        case 0:
            if (at->is_structured() && !at->empty()) {
                auto entry = at->begin();
                std::advance(entry, static_cast<std::ptrdiff_t>(below(random, at->size())));
                at->erase(entry);
                break;
            }
            [[fallthrough]];
        case 1:
            if (at->is_array() && !at->empty()) {
                const Json copy = (*at)[below(random, at->size())];
                at->push_back(copy);
                break;
            }
            [[fallthrough]];
        case 2:
            if (at->is_number_integer()) {
                const auto number = static_cast<int32_t>(at->get<int64_t>());
                *at = below(random, 2) ? int64_t{number} * 1000003 : -int64_t{number} - 1;
                break;
            }
            [[fallthrough]];
        case 3:
            if (at->is_string()) {
                const std::string text = at->get<std::string>();
                *at = mutate_words(text, text, {"\n", "\xE2\x96\x81", "{{", "(?<", "$", "0"}, random);
                if (at->get_ref<const std::string&>() != text) break;
            }
            [[fallthrough]];
        case 4:
            if (parent && parent->is_structured()) {  // another value of the same object or list
                auto entry = parent->begin();
                std::advance(entry, static_cast<std::ptrdiff_t>(below(random, parent->size())));
                const Json copy = *entry;
                *at = copy;
                break;
            }
            [[fallthrough]];
        case 5:
            if (at->is_object() && !at->empty()) {
                const std::string key = at->begin().key();
                const Json value = at->begin().value();
                (*at)[key + (below(random, 2) ? "_" : " ")] = value;
                break;
            }
            [[fallthrough]];
        default:
            *at = odd_value(random);
    }
}

std::string dumped(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string mutate_bytes(std::string bytes, const std::string& other, Random& random) {
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
                const uint64_t number = odd_numbers[below(random, std::size(odd_numbers))];
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
                if (below(random, 4) == 0) bytes.resize(at);
                break;
            default:
                bytes.insert(at, std::string(1 + below(random, 300), static_cast<char>(random())));
        }
    }
    return bytes;
}

std::string mutate_words(const std::string& text, const std::string& other, const std::vector<std::string>& words,
                         Random& random) {
    std::string result = text;
    for (size_t n = 1 + below(random, 3); n > 0; --n) {
        const std::vector<size_t> bounds = word_bounds(result);
        const size_t first = below(random, bounds.size()), last = std::min(first + below(random, 6), bounds.size() - 1);
        const size_t at = bounds[first], length = bounds[last] - at;
        const std::string piece = result.substr(at, length);
        switch (below(random, 7)) {
            case 0:
                result.erase(at, length);
                break;
            case 1:
                result.insert(at, piece);
                break;
            case 2:
                result.insert(at, repeated(piece, size_t{1} << below(random, piece.size() > 16 ? 6 : 12)));
                break;
            case 3: {
                const size_t to = bounds[below(random, bounds.size())];
                if (to <= at) {
                    result.erase(at, length).insert(to, piece);
                }
                break;
            }
            case 4: {
                const std::vector<size_t> of_other = word_bounds(other);
                const size_t from = below(random, of_other.size()),
                             to = std::min(from + 1 + below(random, 12), of_other.size() - 1);
                result.insert(at, other.substr(of_other[from], of_other[to] - std::min(of_other[from], of_other[to])));
                break;
            }
            default:
                if (!words.empty())
                    result.replace(at, below(random, 2) ? length : 0, words[below(random, words.size())]);
        }
    }
    return result;
}

void mutate_json(Json& json, Random& random) {
    for (size_t n = 1 + below(random, 3); n > 0; --n) mutate_value(json, random);
}

Mutation json_mutation() {
    return [](const std::string& bytes, const std::string&, Random& random) {
        Json json = parse_json(bytes, "input", {.non_finite = NonFinite::read});
        mutate_json(json, random);
        return dumped(json);
    };
}

Mutation json_lines_mutation() {
    return [](const std::string& bytes, const std::string& other, Random& random) {
        std::vector<std::string> lines;
        for (size_t at = 0; at < bytes.size();) {
            const size_t end = std::min(bytes.find('\n', at), bytes.size());
            lines.push_back(bytes.substr(at, end - at));
            at = end + 1;
        }
        if (lines.empty()) return other;
        std::string& line = lines[below(random, lines.size())];
        if (below(random, 8) == 0)
            line = lines[below(random, lines.size())];
        else
            line = json_mutation()(line, other, random);
        std::string result;
        for (const std::string& l : lines) result += l + "\n";
        return result;
    };
}

Mutation mutation_within(Envelope envelope, Mutation inner) {
    return [envelope = std::move(envelope), inner = std::move(inner)](const std::string& bytes,
                                                                      const std::string& other, Random& random) {
        return envelope.seal(inner(envelope.open(bytes), envelope.open(other), random), bytes);
    };
}

Envelope safetensors_header() {
    const auto length = [](const std::string& bytes) {
        uint64_t n = 0;
        if (bytes.size() >= 8) std::memcpy(&n, bytes.data(), 8);
        require(bytes.size() >= 8 && n <= bytes.size() - 8, "not a safetensors file");
        return n;
    };
    return {.open = [length](const std::string& bytes) { return bytes.substr(8, length(bytes)); },
            .seal =
                [length](const std::string& header, const std::string& bytes) {
                    const uint64_t n = header.size();
                    return std::string(reinterpret_cast<const char*>(&n), 8) + header + bytes.substr(8 + length(bytes));
                }};
}

Envelope gzip_content() {
    constexpr int gzip_window = 15 + 16;
    return {.open =
                [](const std::string& bytes) {
                    std::string content(1 << 20, '\0');
                    z_stream stream{};
                    require(inflateInit2(&stream, gzip_window) == Z_OK, "zlib");
                    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
                    stream.avail_in = static_cast<uInt>(bytes.size());
                    stream.next_out = reinterpret_cast<Bytef*>(content.data());
                    stream.avail_out = static_cast<uInt>(content.size());
                    inflate(&stream, Z_FINISH);
                    content.resize(stream.total_out);
                    inflateEnd(&stream);
                    return content;
                },
            .seal =
                [](const std::string& content, const std::string&) {
                    z_stream stream{};
                    require(deflateInit2(&stream, 6, Z_DEFLATED, gzip_window, 8, Z_DEFAULT_STRATEGY) == Z_OK, "zlib");
                    std::string bytes(deflateBound(&stream, content.size()), '\0');
                    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
                    stream.avail_in = static_cast<uInt>(content.size());
                    stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
                    stream.avail_out = static_cast<uInt>(bytes.size());
                    deflate(&stream, Z_FINISH);
                    bytes.resize(stream.total_out);
                    deflateEnd(&stream);
                    return bytes;
                }};
}

Envelope zstd_content() {
    return {.open =
                [](const std::string& bytes) {
                    std::string content(1 << 20, '\0');
                    const size_t n = ZSTD_decompress(content.data(), content.size(), bytes.data(), bytes.size());
                    require(!ZSTD_isError(n), "zstd");
                    content.resize(n);
                    return content;
                },
            .seal =
                [](const std::string& content, const std::string&) {
                    std::string bytes(ZSTD_compressBound(content.size()), '\0');
                    const size_t n = ZSTD_compress(bytes.data(), bytes.size(), content.data(), content.size(), 3);
                    require(!ZSTD_isError(n), "zstd");
                    bytes.resize(n);
                    return bytes;
                }};
}

}  // namespace colonnade
