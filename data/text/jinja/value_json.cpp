// Values as JSON, as Python's json.dumps writes them.

#include "data/text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace colonnade::jinja {

namespace {

/// Writes JSON as Python's json.dumps does.
class JsonWriter {
  public:
    JsonWriter(Text& out, const JsonStyle& style, Budget& budget) : out_(out), style_(style), budget_(budget) {}

    void write(const Value& value, size_t level) {
        account();
        if (value.is(Kind::text)) return string(value.as_text());
        if (value.is(Kind::list) || value.is(Kind::tuple)) return array(value, level);
        if (value.is(Kind::dict)) return object(value, level);
        out_.append(scalar(value), {value.origin});
    }

  private:
    void account() {
        budget_.write(out_.size() - written_, written_);
        written_ = out_.size();
    }

    static std::string scalar(const Value& value) {
        switch (value.kind()) {
            case Kind::none:
                return "null";
            case Kind::boolean:
                return value.as_integer() != 0 ? "true" : "false";
            case Kind::integer:
                return std::to_string(value.as_integer());
            case Kind::real: {
                if (std::isnan(value.as_real())) return "NaN";
                if (std::isinf(value.as_real())) return value.as_real() < 0 ? "-Infinity" : "Infinity";
                return format_real(value.as_real());
            }
            default:
                fail(Exit::data, "tojson: a value of type {} is not JSON", type_name(value));
        }
    }

    std::string escape(char32_t c) const {
        static const std::pair<char32_t, const char*> kShort[] = {
            {'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\r', "\\r"}, {'\t', "\\t"}, {'\b', "\\b"}, {'\f', "\\f"}};
        for (const auto& [character, text] : kShort)
            if (c == character) return text;
        const auto unit = [](char32_t u) { return fmt::format("\\u{:04x}", static_cast<uint32_t>(u)); };
        if (c < 0x20) return unit(c);
        if (!style_.ensure_ascii || c < 0x7F) return {};
        if (c < 0x10000) return unit(c);
        return unit(0xD800 + ((c - 0x10000) >> 10)) + unit(0xDC00 + ((c - 0x10000) & 0x3FF));
    }

    void string(const Text& text) {
        const std::string& bytes = text.bytes();
        out_.append("\"", text.mark_at(0));
        size_t done = 0;
        for (size_t at = 0; at < bytes.size();) {
            const size_t size = character_length(bytes, at);
            if (const std::string replaced = escape(character_at(bytes, at)); !replaced.empty()) {
                out_.append_part(text, done, at);
                out_.append(replaced, text.mark_at(at));
                done = at + size;
                if (out_.size() - written_ >= escaped_at_once) {
                    budget_.spend(escaped_at_once / 8);  // an escape takes as long as 8 bytes or more of plain text
                    account();
                }
            }
            at += size;
        }
        out_.append_part(text, done, bytes.size());
        out_.append("\"", text.mark_at(bytes.size()));
    }

    void new_line(size_t level, Mark mark) {
        if (!style_.pretty) return;
        std::string space = "\n";
        for (size_t i = 0; i < level; ++i) space += style_.indent;
        out_.append(space, mark);
    }

    void array(const Value& value, size_t level) {
        const Mark mark{value.origin};
        if (value.values().empty()) return out_.append("[]", mark);
        out_.append("[", mark);
        bool first = true;
        for (const Value& each : value.values()) {
            if (!first) out_.append(style_.between, mark);
            first = false;
            new_line(level + 1, mark);
            write(each, level + 1);
        }
        new_line(level, mark);
        out_.append("]", mark);
    }

    void object(const Value& value, size_t level) {
        const Mark mark{value.origin};
        if (value.items().empty()) return out_.append("{}", mark);
        Items items = value.items();
        if (style_.sort_keys)
            std::stable_sort(items.begin(), items.end(),
                             [&](const auto& a, const auto& b) { return compare(a.first, b.first, budget_) < 0; });
        out_.append("{", mark);
        bool first = true;
        for (const auto& [key, each] : items) {
            if (!first) out_.append(style_.between, mark);
            first = false;
            new_line(level + 1, mark);
            if (key.is(Kind::text))
                string(key.as_text());
            else
                out_.append("\"" + scalar(key) + "\"", mark);
            out_.append(style_.after_key, mark);
            write(each, level + 1);
        }
        new_line(level, mark);
        out_.append("}", mark);
    }

    static constexpr size_t escaped_at_once = 4096;
    Text& out_;
    const JsonStyle& style_;
    Budget& budget_;
    size_t written_ = 0;
};

}  // namespace

void append_json(Text& out, const Value& value, const JsonStyle& style, Budget& budget) {
    JsonWriter(out, style, budget).write(value, 0);
    budget.write(0, out.size());
}

}  // namespace colonnade::jinja
