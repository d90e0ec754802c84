#include "engine/io/json.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {
namespace {

// Iterates over the text and records how far the parser has read, because SAX events carry no position.
class TrackedChar {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    TrackedChar(const char* at, const char** reached) : at_(at), reached_(reached) {}
    reference operator*() const { return *at_; }
    TrackedChar& operator++() {
        *reached_ = ++at_;
        return *this;
    }
    bool operator==(const TrackedChar& other) const { return at_ == other.at_; }

  private:
    const char* at_;
    const char** reached_;
};

/// Non-finite numbers of a text: the offset behind each, and its value (a sign in front is not included).
using NonFiniteNumbers = std::unordered_map<size_t, double>;

/// Replaces every NaN and Infinity outside strings by a zero of the same length, so that all positions stay.
NonFiniteNumbers spell_finite(std::string& text) {
    NonFiniteNumbers found;
    const auto replace = [&](size_t begin, std::string_view zero, double value) {
        const size_t end = begin + zero.size();
        const bool starts =
            begin > 0 && std::string_view(" \t\r\n:,[-").find(text[begin - 1]) != std::string_view::npos;
        const bool ends =
            end >= text.size() || std::string_view(" \t\r\n,]}").find(text[end]) != std::string_view::npos;
        if (!starts || !ends) return;
        text.replace(begin, zero.size(), zero);
        found.emplace(end, value);
    };
    bool quoted = false;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"')
            quoted = !quoted;
        else if (quoted)
            i += text[i] == '\\' ? 1 : 0;
        else if (text.compare(i, 3, "NaN") == 0)
            replace(i, "0.0", std::numeric_limits<double>::quiet_NaN());
        else if (text.compare(i, 8, "Infinity") == 0)
            replace(i, "0.000000", std::numeric_limits<double>::infinity());
    }
    return found;
}

/// Bytes that malloc takes for an allocation.
size_t allocated(size_t bytes) {
    return bytes == 0 ? 0 : std::max<size_t>(32, (bytes + 8 + 15) / 16 * 16);
}
/// Bytes that a text takes beside its std::string.
size_t text_memory(const std::string& text) {
    return text.size() > 15 ? allocated(text.size() + 1) : 0;
}

// Builds the value. Counts the levels and the memory, and keeps the keys of every open object.
class Builder {
  public:
    Builder(std::string_view text, const std::string& where, const JsonLimits& limits)
        : text_(text), where_(where), limits_(limits), reached_(text.data()) {}

    Json parse() {
        if (text_.size() > limits_.bytes)
            fail(Exit::data, "{}: {} bytes of JSON, expected at most {}", where_, text_.size(), limits_.bytes);
        // The parser takes a NUL byte as the end of its input and would ignore the rest.
        if (const size_t nul = text_.find('\0'); nul != text_.npos) {
            reached_ = text_.data() + nul + 1;
            refuse("a NUL byte");
        }
        std::string finite;
        if (limits_.non_finite == NonFinite::read &&
            (text_.find("NaN") != text_.npos || text_.find("Infinity") != text_.npos)) {
            finite = text_;
            non_finite_ = spell_finite(finite);
            text_ = finite;
            reached_ = text_.data();
        }
        Json::sax_parse(TrackedChar(text_.data(), &reached_), TrackedChar(text_.data() + text_.size(), &reached_),
                        this);
        return std::move(root_);
    }

    bool null() { return add(nullptr); }
    bool boolean(bool value) { return add(value); }
    bool number_integer(Json::number_integer_t value) { return add(value); }
    bool number_unsigned(Json::number_unsigned_t value) { return add(value); }
    bool number_float(Json::number_float_t value, const std::string&) {
        if (non_finite_.empty()) return add(value);
        // The parser has read one byte more than the number.
        const auto found = non_finite_.find(static_cast<size_t>(reached_ - text_.data()) - 1);
        return add(found == non_finite_.end() ? value : std::copysign(found->second, value));
    }
    bool string(std::string& value) {
        charge(allocated(sizeof value) + text_memory(value));
        return add(std::move(value));
    }
    bool binary(Json::binary_t&) { return false; }  // never called: text has no binary values
    bool start_object(size_t) { return open(Json::object(), allocated(sizeof(Json::object_t))); }
    bool start_array(size_t) { return open(Json::array(), allocated(sizeof(Json::array_t))); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }
    bool key(std::string& value) {
        const size_t bytes = text_memory(value);
        charge(bytes);
        charge_key(key_memory + bytes);
        if (!open_.back().keys.insert(value).second) refuse(fmt::format("duplicate key '{:.100}'", value));
        key_ = std::move(value);
        return true;
    }

    bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) {
        // After a number the parser has read one byte more than it counts.
        reached_ = text_.data() + std::min(position, text_.size());
        // "[json.exception...] parse error at line 1, column 5: WHAT; last read: 'TOKEN'": we print our own
        // position, and the token may be megabytes long.
        std::string_view what = error.what();
        const size_t id = what.find("] ");
        if (id != what.npos) what.remove_prefix(id + 2);
        const size_t place = what.find(": ");
        if (what.starts_with("parse error at") && place != what.npos) what.remove_prefix(place + 2);
        refuse(what.substr(0, std::min(what.find("; last read"), size_t{200})));
    }

  private:
    struct Level {
        Json* value;
        std::unordered_set<std::string> keys;
        size_t key_bytes = 0;  ///< memory of `keys`
    };
    /// Of a key in a set: a node of a list, with pointer and hash, and its bucket.
    static constexpr size_t key_memory = 72;
    /// Containers double: half of one may be unused.
    static constexpr size_t growth = 2;

    void charge(size_t bytes) {
        memory_ += bytes;
        const size_t most = std::clamp(limits::json_memory_per_byte * limits_.bytes, limits::json_memory_least,
                                       limits::json_memory_most);
        if (memory_ > most) refuse(fmt::format("its values take more than {} MiB of memory", most >> 20));
    }
    void charge_key(size_t bytes) {
        open_.back().key_bytes += bytes;
        charge(bytes);
    }

    Json* place(Json&& value) {
        if (open_.empty()) return &(root_ = std::move(value));
        Json& parent = *open_.back().value;
        charge(growth * (parent.is_array() ? sizeof(Json) : sizeof(Json::object_t::value_type)));
        if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::move(value));
        // The map's own insert searches all keys: quadratic time for a header with many tensors.
        Json::object_t::Container& entries = parent.get_ref<Json::object_t&>();
        return &entries.emplace_back(std::move(key_), std::move(value)).second;
    }
    bool add(Json&& value) {
        place(std::move(value));
        return true;
    }
    bool open(Json&& container, size_t bytes) {
        charge(bytes);
        if (static_cast<int>(open_.size()) >= limits_.depth)
            refuse(fmt::format("nested deeper than {} levels", limits_.depth));
        open_.push_back({.value = place(std::move(container)), .keys = {}});
        return true;
    }
    bool close() {
        memory_ -= open_.back().key_bytes;
        open_.pop_back();
        return true;
    }

    [[noreturn]] void refuse(std::string_view what) const {
        const std::string_view before = text_.substr(0, static_cast<size_t>(reached_ - text_.data()));
        const size_t newline = before.empty() ? before.npos : before.rfind('\n', before.size() - 1);
        const size_t column = std::max<size_t>(before.size() - (newline == before.npos ? 0 : newline + 1), 1);
        if (text_.find('\n') == text_.npos) fail(Exit::data, "{}: column {}: invalid JSON: {}", where_, column, what);
        fail(Exit::data, "{}: line {}, column {}: invalid JSON: {}", where_,
             1 + std::count(before.begin(), before.end(), '\n'), column, what);
    }

    std::string_view text_;
    const std::string& where_;
    const JsonLimits& limits_;
    const char* reached_;
    NonFiniteNumbers non_finite_;
    Json root_;
    std::string key_;
    std::vector<Level> open_;
    size_t memory_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
    // Releases of the library word this differently.
    if (text.empty())
        fail(Exit::data, "{}: column 1: invalid JSON: syntax error while parsing value - unexpected end of input",
             where);
    return Builder(text, where, limits).parse();
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
    const std::string text = read_file(path, limits.bytes);
    refuse_stand_in(path, text);
    return parse_json(text, path, limits);
}

std::string text_in(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
int64_t number_in(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

}  // namespace colonnade
