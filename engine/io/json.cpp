#include "engine/io/json.h"

#include <algorithm>
#include <iterator>
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

// Builds the value. Counts the levels and keeps the keys of every open object.
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
        Json::sax_parse(TrackedChar(text_.data(), &reached_), TrackedChar(text_.data() + text_.size(), &reached_),
                        this);
        return std::move(root_);
    }

    bool null() { return add(nullptr); }
    bool boolean(bool value) { return add(value); }
    bool number_integer(Json::number_integer_t value) { return add(value); }
    bool number_unsigned(Json::number_unsigned_t value) { return add(value); }
    bool number_float(Json::number_float_t value, const std::string&) { return add(value); }
    bool string(std::string& value) { return add(std::move(value)); }
    bool binary(Json::binary_t&) { return false; }  // never called: text has no binary values
    bool start_object(size_t) { return open(Json::object()); }
    bool start_array(size_t) { return open(Json::array()); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }
    bool key(std::string& value) {
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
    };

    Json* place(Json&& value) {
        if (open_.empty()) return &(root_ = std::move(value));
        Json& parent = *open_.back().value;
        if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::move(value));
        // The map's own insert searches all keys: quadratic time for a header with many tensors.
        Json::object_t::Container& entries = parent.get_ref<Json::object_t&>();
        return &entries.emplace_back(std::move(key_), std::move(value)).second;
    }
    bool add(Json&& value) {
        place(std::move(value));
        return true;
    }
    bool open(Json&& container) {
        if (static_cast<int>(open_.size()) >= limits_.depth)
            refuse(fmt::format("nested deeper than {} levels", limits_.depth));
        open_.push_back({place(std::move(container)), {}});
        return true;
    }
    bool close() {
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
    Json root_;
    std::string key_;
    std::vector<Level> open_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
    return Builder(text, where, limits).parse();
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
    return parse_json(read_file(path, limits.bytes), path, limits);
}

}  // namespace colonnade
