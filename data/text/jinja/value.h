#pragma once
// Values of a template: Python's, as far as templates need them. Strings carry the origin of each byte.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/jinja/text.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade::jinja {

/// What one render may use. Every step of the interpreter and every 64 bytes that it writes count once.
struct Limits {
    uint64_t steps = limits::render_steps;
    size_t depth = limits::render_depth;            ///< nested expressions, blocks and macro calls
    size_t text_bytes = limits::render_text_bytes;  ///< of any one string, the result included
    size_t live_bytes = limits::render_live_bytes;  ///< of all values that exist at a time
};

/// Bytes of the values that this thread has made and that still exist; a render looks at what it adds. Values that
/// another thread destroys, such as those of a template, are not in its way: they do not change during a render.
inline constinit thread_local size_t live_bytes = 0;

/// Counts what a render has used; throws Exit::data when a limit is passed.
class Budget {
  public:
    explicit Budget(const Limits& limits) : limits_(limits) {}
    void spend(uint64_t steps) {
        if ((used_ += steps) > limits_.steps)
            fail(Exit::data, "more than {} steps: an endless template?", limits_.steps);
        hold(0);
    }
    /// Throws if `bytes` more would exceed the limit on all values of a render.
    void hold(size_t bytes) const {
        // A difference below zero: values from before the render are gone.
        const auto made = static_cast<int64_t>(live_bytes - live_before_);
        if (made + static_cast<int64_t>(bytes) > static_cast<int64_t>(limits_.live_bytes))
            fail(Exit::data, "values of more than {} bytes at a time", limits_.live_bytes);
    }
    /// Counts bytes that are added to a text of `size` bytes.
    void write(size_t bytes, size_t size = 0) {
        if (bytes > limits_.text_bytes || size > limits_.text_bytes - bytes)
            fail(Exit::data, "a text of more than {} bytes", limits_.text_bytes);
        spend(1 + bytes / 64);
    }
    /// Counts texts, lists or dicts that are made: their memory is more than a step may take.
    void make(size_t objects) { spend(32 * objects); }
    size_t depth = 0;
    const Limits& limits() const { return limits_; }

  private:
    Limits limits_;
    uint64_t used_ = 0;
    size_t live_before_ = live_bytes;
};

class Value;
struct Arguments;
using Values = std::vector<Value>;
using Items = std::vector<std::pair<Value, Value>>;

enum class Kind : uint8_t {
    undefined,  ///< text: the reason
    none,
    boolean,
    integer,
    real,
    text,
    list,
    tuple,
    view,       ///< dict.items() and its kin: iterable, has a length, no index
    generator,  ///< what map, select and items return: iterable once
    dict,
    name_space,  ///< namespace(): the only value that changes
    function,    ///< macros, methods, globals
    loop,        ///< the variable `loop`
};

struct Object {
    Object() = default;
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;
    virtual ~Object() { live_bytes -= counted; }
    /// Adds the bytes of what the object holds to live_bytes, once.
    void count(size_t bytes) {
        counted = bytes;
        live_bytes += bytes;
    }
    size_t depth = 0;    ///< of values in values: recursion over them stays bounded
    size_t counted = 0;  ///< bytes in live_bytes
};
struct TextObject : Object {
    Text text;
};
struct ListObject : Object {
    Values values;
    const char* view = "";  ///< such as dict_keys
    bool consumed = false;
};
struct DictObject : Object {
    Items items;
};
struct FunctionObject : Object {
    std::string name;
    std::function<Value(const Arguments&)> call;
};
struct LoopObject : Object {
    Values values;
    size_t index = 0;
};

class Value {
  public:
    Value() = default;
    static Value undefined(std::string reason);
    static Value none() { return Value(Kind::none); }
    static Value boolean(bool value);
    static Value integer(int64_t value);
    static Value real(double value);
    static Value text(Text text, bool markup = false);
    static Value text(std::string_view bytes, Mark mark = {}) { return text(Text(bytes, mark)); }
    static Value list(Values values, Kind kind = Kind::list);
    static Value dict(Items items, Kind kind = Kind::dict);
    /// `bound`: a value that `call` holds, or null.
    static Value function(std::string name, std::function<Value(const Arguments&)> call, const Value* bound = nullptr);
    static Value loop(Values values);

    Kind kind() const { return kind_; }
    bool is(Kind kind) const { return kind_ == kind; }
    bool is_number() const { return is(Kind::boolean) || is(Kind::integer) || is(Kind::real); }
    bool is_integral() const { return is(Kind::boolean) || is(Kind::integer); }
    bool is_sequence() const { return is(Kind::list) || is(Kind::tuple) || is(Kind::view) || is(Kind::generator); }
    bool is_markup() const { return markup_; }

    int64_t as_integer() const { return integer_; }
    double as_real() const { return is(Kind::real) ? real_ : static_cast<double>(integer_); }
    const Text& as_text() const { return static_cast<const TextObject&>(*object_).text; }
    const std::string& bytes() const { return as_text().bytes(); }
    const Values& values() const { return static_cast<const ListObject&>(*object_).values; }
    ListObject& list_object() const { return static_cast<ListObject&>(*object_); }
    const Items& items() const { return static_cast<const DictObject&>(*object_).items; }
    DictObject& dict_object() const { return static_cast<DictObject&>(*object_); }
    const FunctionObject& as_function() const { return static_cast<const FunctionObject&>(*object_); }
    LoopObject& loop_object() const { return static_cast<LoopObject&>(*object_); }
    const std::shared_ptr<Object>& object() const { return object_; }
    const Value* find(std::string_view key) const;  ///< value of a key of a dict or namespace, or null

    /// Where the value came from. A text has the origin of its bytes instead.
    uint32_t origin = 0;

  private:
    explicit Value(Kind kind) : kind_(kind) {}
    Kind kind_ = Kind::undefined;
    bool markup_ = false;
    union {
        int64_t integer_ = 0;
        double real_;
    };
    std::shared_ptr<Object> object_;
};

/// Arguments of a call: (1, 2, key=3).
struct Arguments {
    Values positional;
    std::vector<std::pair<std::string, Value>> keywords;
    uint32_t origin = 0;  ///< of template text written where the call is

    /// Returns argument number `index`, or the one named `name`; null when absent.
    const Value* get(size_t index, std::string_view name) const;
    /// Refuses more than `names` positional arguments and keywords that are none of them.
    void expect(std::string_view function, std::initializer_list<std::string_view> names, size_t required) const;
};

void set_item(Items& items, const Value& key, Value value, Budget& budget);  ///< replaces the value of an equal key
void append(Text& text, const Text& part, Budget& budget);

std::string type_name(const Value& value);                         ///< Python's: "str", "NoneType"
std::string reason_of(const Value& undefined);                     ///< why it is undefined
bool is_true(const Value& value);                                  ///< Python's bool()
void append_str(Text& text, const Value& value, Budget& budget);   ///< Python's str()
void append_repr(Text& text, const Value& value, Budget& budget);  ///< Python's repr()
Text to_text(const Value& value, Budget& budget);                  ///< Python's str()
std::string format_real(double value);                             ///< Python's repr() of a float
bool equal(const Value& a, const Value& b, Budget& budget);
int compare(const Value& a, const Value& b, Budget& budget);  ///< negative, 0 or positive; refuses mixed types
bool contains(const Value& container, const Value& item, Budget& budget);
Values iterate(const Value& value, Budget& budget);  ///< what a for loop visits
size_t length(const Value& value);
Text escaped(const Text& text);  ///< HTML

/// json.dumps of Python.
struct JsonStyle {
    bool ensure_ascii = false, sort_keys = false;
    bool pretty = false;  ///< `indent` is given
    std::string indent;   ///< of one level
    std::string between = ", ", after_key = ": ";
};
void append_json(Text& text, const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace colonnade::jinja
