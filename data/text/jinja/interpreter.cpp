#include "data/text/jinja/interpreter.h"

#include <algorithm>
#include <array>

namespace colonnade::jinja {
namespace {

constexpr size_t kScopeCost = 8;  // steps: bounds the memory that scopes take

using Json = nlohmann::ordered_json;

template <typename T>
class Restored {
  public:
    explicit Restored(T& variable) : variable_(variable), before_(variable) {}
    ~Restored() { variable_ = before_; }
    Restored(const Restored&) = delete;
    Restored& operator=(const Restored&) = delete;

  private:
    T& variable_;
    T before_;
};

}  // namespace

Value* Scope::find(const std::string& name, Budget& budget) {
    for (Scope* scope = this; scope != nullptr; scope = scope->parent) {
        budget.spend(scope->variables.size() / 16);
        for (auto& [known, value] : scope->variables)
            if (known == name) return &value;
    }
    return nullptr;
}

void Scope::set(const std::string& name, Value value, Budget& budget) {
    budget.spend(variables.size() / 16);
    for (auto& [known, old] : variables)
        if (known == name) {
            old = std::move(value);
            return;
        }
    variables.emplace_back(name, std::move(value));
}

bool is_global(const std::string& name) {
    static constexpr std::array<std::string_view, 5> kGlobals = {"raise_exception", "strftime_now", "namespace",
                                                                 "range", "dict"};
    return std::find(kGlobals.begin(), kGlobals.end(), name) != kGlobals.end();
}

Interpreter::Interpreter(const RenderOptions& options, const Json& variables)
    : options_(options), runtime_{Budget(options.limits)}, origins_(1) {
    template_origins_[Origin::kNoMessage] = 0;
    if (!variables.is_object()) fail(Exit::data, "the variables of a template must be a JSON object");
    scope_ = &scopes_.emplace_back();
    for (const auto& [name, value] : variables.items())
        scope_->set(name, import(value, add_origin(0, name, true), 1), runtime_.budget);
    scope_ = &scopes_.emplace_back(Scope{scope_, {}});
}

Interpreter::~Interpreter() {
    for (const Value& each : namespaces_) each.dict_object().items.clear();
}

Rendered Interpreter::run(const Node& tree) {
    execute(tree);
    Rendered rendered;
    rendered.text = std::move(output_);
    rendered.origins = std::move(origins_);
    size_t begin = 0;
    uint32_t last = 0;
    for (const Run& run : rendered.text.runs()) {
        const uint32_t generation = run.mark.generation;
        if (generation != 0 && generation == last) rendered.generation.back().end = run.end;
        if (generation != 0 && generation != last) rendered.generation.push_back({begin, run.end});
        last = generation;
        begin = run.end;
    }
    return rendered;
}

// Input.

uint32_t Interpreter::add_origin(uint32_t parent, const std::string& key, bool top_level) {
    Origin origin;
    origin.input = true;
    origin.parent = parent;
    origin.key = key;
    const Origin& holder = origins_[parent];
    origin.message = holder.message;
    origin.field = holder.field;
    if (top_level) {
        origin.field = key;
    } else if (holder.parent == 0 && holder.key == "messages") {
        origin.message = std::stoul(key);
        origin.field.clear();
    } else if (holder.message != Origin::kNoMessage && holder.field.empty()) {
        origin.field = key;
    }
    origins_.push_back(std::move(origin));
    return static_cast<uint32_t>(origins_.size() - 1);
}

Value Interpreter::input_key(const std::string& key, uint32_t origin) {
    return Value::text(key, Mark{origin});
}

Value Interpreter::import(const Json& json, uint32_t origin, size_t depth) {
    if (depth > 100) fail(Exit::data, "the variables are nested deeper than 100");
    Value value;
    if (json.is_null()) {
        value = Value::none();
    } else if (json.is_boolean()) {
        value = Value::boolean(json.get<bool>());
    } else if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) {
        fail(Exit::data, "{} exceeds 64 bits: {}", origins_[origin].key, json.dump());
    } else if (json.is_number_integer()) {
        value = Value::integer(json.get<int64_t>());
    } else if (json.is_number_float()) {
        value = Value::real(json.get<double>());
    } else if (json.is_string()) {
        value = Value::text(json.get_ref<const std::string&>(), Mark{origin});
    } else if (json.is_array()) {
        Values values;
        const bool messages = origins_[origin].key == "messages" && origins_[origin].parent == 0;
        for (size_t i = 0; i < json.size(); ++i) {
            // Only what belongs to a message needs an origin for each item.
            const bool apart = messages || origins_[origin].message != Origin::kNoMessage;
            values.push_back(import(json[i], apart ? add_origin(origin, std::to_string(i), false) : origin, depth + 1));
        }
        value = Value::list(std::move(values));
    } else {
        Items items;
        for (const auto& [key, each] : json.items()) {
            const bool apart = origins_[origin].message != Origin::kNoMessage;
            const uint32_t inner = apart ? add_origin(origin, key, false) : origin;
            items.emplace_back(input_key(key, inner), import(each, inner, depth + 1));
        }
        value = Value::dict(std::move(items));
    }
    value.origin = origin;
    return value;
}

uint32_t Interpreter::template_origin(size_t message) {
    const auto [found, added] = template_origins_.try_emplace(message, static_cast<uint32_t>(origins_.size()));
    if (added) {
        origins_.emplace_back();
        origins_.back().message = message;
    }
    return found->second;
}

/// The template's text written for an item of `messages` belongs to that message.
void Interpreter::enter_message(const Value& item) {
    const Origin& origin = origins_[item.origin];
    if (!item.is(Kind::dict) || !origin.input || origin.message == Origin::kNoMessage || !origin.field.empty()) return;
    message_ = origin.message;
    runtime_.origin = template_origin(message_);
}

// Statements.

void Interpreter::write(const Value& value) {
    append_str(*out_, value, runtime_.budget);
}

Interpreter::Flow Interpreter::execute_body(const Node& node) {
    for (const NodePtr& part : node.parts)
        if (const Flow flow = execute(*part); flow != Flow::normal) return flow;
    return Flow::normal;
}

Interpreter::Flow Interpreter::execute(const Node& node) {
    runtime_.budget.spend(1);
    const Restored restored(runtime_.budget.depth);
    if (++runtime_.budget.depth > options_.limits.depth)
        fail(Exit::data, "blocks, expressions and macros nested deeper than {}: an endless recursion?",
             options_.limits.depth);
    at_ = &node;
    switch (node.form) {
        case Form::block:
            return execute_body(node);
        case Form::data:
            runtime_.budget.write(node.value.bytes().size(), out_->size());
            out_->append(node.value.bytes(), {runtime_.origin});
            break;
        case Form::print: {
            const Value value = evaluate(*node.parts[0]);
            at_ = &node;
            write(value);
            break;
        }
        case Form::branch:
            return execute_branch(node);
        case Form::loop:
            return execute_loop(node);
        case Form::assignment:
            assign(*node.parts[0], evaluate(*node.parts[1]));
            break;
        case Form::capture:
            execute_capture(node);
            break;
        case Form::macro:
            define_macro(node);
            break;
        case Form::generation:
            execute_generation(node);
            break;
        case Form::filter_block:
            execute_filter(node);
            break;
        case Form::stop:
            return Flow::stop;
        case Form::skip:
            return Flow::skip;
        default:
            fail(Exit::internal, "an expression in place of a statement");
    }
    return Flow::normal;
}

Interpreter::Flow Interpreter::execute_branch(const Node& node) {
    size_t i = 0;
    for (; i + 1 < node.parts.size(); i += 2)
        if (is_true(evaluate(*node.parts[i]))) return execute(*node.parts[i + 1]);
    return i < node.parts.size() ? execute(*node.parts[i]) : Flow::normal;
}

Interpreter::Flow Interpreter::execute_loop(const Node& node) {
    const Value iterated = evaluate(*node.parts[1]);
    at_ = &node;
    Values values = iterate(iterated, runtime_.budget);
    runtime_.budget.spend(kScopeCost);
    Scope& scope = scopes_.emplace_back(Scope{scope_, {}});
    const Restored in_scope(scope_);
    const Restored in_message(message_);
    const Restored in_origin(runtime_.origin);
    scope_ = &scope;
    if (node.parts[2]) {
        Values kept;
        for (const Value& each : values) {
            scope.variables.clear();
            assign(*node.parts[0], each);
            if (is_true(evaluate(*node.parts[2]))) kept.push_back(each);
        }
        values = std::move(kept);
    }
    if (!values.empty()) return execute_iterations(node, std::move(values), scope);
    scope.variables.clear();
    return node.parts[4] ? execute(*node.parts[4]) : Flow::normal;
}

Interpreter::Flow Interpreter::execute_iterations(const Node& node, Values values, Scope& scope) {
    const Value variable = Value::loop(std::move(values));
    LoopObject& loop = variable.loop_object();
    const size_t message = message_;
    const uint32_t origin = runtime_.origin;
    for (; loop.index < loop.values.size(); ++loop.index) {
        scope.variables.clear();
        message_ = message;
        runtime_.origin = origin;
        assign(*node.parts[0], loop.values[loop.index]);
        scope.set("loop", variable, runtime_.budget);
        enter_message(loop.values[loop.index]);
        if (execute(*node.parts[3]) == Flow::stop) break;
    }
    scope.variables.clear();  // scopes stay until the end; `loop` holds all that was iterated
    return Flow::normal;
}

Text Interpreter::captured(const Node& body) {
    Text text;
    const Restored restored(out_);
    out_ = &text;
    execute(body);
    return text;
}

void Interpreter::execute_capture(const Node& node) {
    Value value = Value::text(captured(*node.parts[1]));
    if (node.parts[2]) {
        captured_ = std::move(value);
        value = evaluate(*node.parts[2]);
    }
    assign(*node.parts[0], value);
}

void Interpreter::execute_filter(const Node& node) {
    captured_ = Value::text(captured(*node.parts[1]));
    write(evaluate(*node.parts[0]));
}

void Interpreter::execute_generation(const Node& node) {
    const uint32_t number = ++generation_;
    Text text = captured(*node.parts[0]);
    text.set_generation(number);
    append(*out_, text, runtime_.budget);
}

void Interpreter::define_macro(const Node& node) {
    Scope* closure = scope_;
    const auto call = [this, &node, closure](const Arguments& arguments) {
        return call_macro(node, closure, arguments);
    };
    scope_->set(node.word, Value::function(node.word, call), runtime_.budget);
}

Value Interpreter::call_macro(const Node& node, Scope* closure, const Arguments& arguments) {
    runtime_.budget.spend(kScopeCost + node.words.size());
    if (arguments.positional.size() > node.words.size())
        fail(Exit::data, "macro '{}' takes at most {} arguments, found {}", node.word, node.words.size(),
             arguments.positional.size());
    for (const auto& [keyword, value] : arguments.keywords) {
        const auto parameter = std::find(node.words.begin(), node.words.end(), keyword);
        if (parameter == node.words.end())
            fail(Exit::data, "macro '{}' takes no argument named '{}'", node.word, keyword);
        if (parameter - node.words.begin() < std::ssize(arguments.positional))
            fail(Exit::data, "macro '{}': argument '{}' is given twice", node.word, keyword);
    }
    Scope& scope = scopes_.emplace_back(Scope{closure, {}});
    const Restored restored(scope_);
    scope_ = &scope;
    const size_t defaults = node.parts.size() - 1, first_default = node.words.size() - defaults;
    for (size_t i = 0; i < node.words.size(); ++i) {
        const Value* given = arguments.get(i, node.words[i]);
        Value value = given != nullptr ? *given
                      : i < first_default
                          ? Value::undefined(fmt::format("parameter '{}' was not provided", node.words[i]))
                          : evaluate(*node.parts[1 + i - first_default]);
        scope.set(node.words[i], std::move(value), runtime_.budget);
    }
    return Value::text(captured(*node.parts[0]));
}

void Interpreter::assign(const Node& target, const Value& value) {
    if (target.form == Form::name) return scope_->set(target.word, value, runtime_.budget);
    if (target.form == Form::attribute) {
        const Value holder = evaluate(*target.parts[0]);
        at_ = &target;
        if (!holder.is(Kind::name_space))
            fail(Exit::data, "only a namespace takes attributes, found {}", type_name(holder));
        return set_item(holder.dict_object().items, Value::text(target.word), value, runtime_.budget);
    }
    const Values values = iterate(value, runtime_.budget);
    if (values.size() != target.parts.size())
        fail(Exit::data, "expected {} values to unpack, found {}", target.parts.size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) assign(*target.parts[i], values[i]);
}

}  // namespace colonnade::jinja
