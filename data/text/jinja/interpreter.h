#pragma once
// One render of a template.

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "data/text/jinja/builtins.h"
#include "data/text/jinja/parser.h"
#include "data/text/jinja/template.h"

namespace colonnade::jinja {

/// Variables of a block. A loop or macro opens one; `if` does not.
struct Scope {
    Scope* parent = nullptr;
    std::vector<std::pair<std::string, Value>> variables;
    Value* find(const std::string& name, Budget& budget);
    void set(const std::string& name, Value value, Budget& budget);
};

bool is_global(const std::string& name);                                  ///< range, namespace, ...
std::string format_time(const Clock& clock, const std::string& pattern);  ///< strftime, C locale

class Interpreter {
  public:
    Interpreter(const RenderOptions& options, const nlohmann::ordered_json& variables);
    ~Interpreter();

    Rendered run(const Node& tree);
    Place place() const { return at_ != nullptr ? at_->place : Place{}; }  ///< what was evaluated last

  private:
    enum class Flow { normal, stop, skip };

    // Input.
    Value import(const nlohmann::ordered_json& json, uint32_t origin, size_t depth);
    uint32_t add_origin(uint32_t parent, const std::string& key, bool top_level);
    Value input_key(const std::string& key, uint32_t origin);
    uint32_t template_origin(size_t message);
    void enter_message(const Value& item);

    // Statements.
    Flow execute(const Node& node);
    Flow execute_body(const Node& node);
    Flow execute_branch(const Node& node);
    Flow execute_loop(const Node& node);
    Flow execute_iterations(const Node& node, Values values, Scope& scope);
    void execute_capture(const Node& node);
    void execute_generation(const Node& node);
    void execute_filter(const Node& node);
    void define_macro(const Node& node);
    Value call_macro(const Node& node, Scope* closure, const Arguments& arguments);
    Text captured(const Node& body);
    void assign(const Node& target, const Value& value);
    void write(const Value& value);

    // Expressions.
    Value evaluate(const Node& node);
    Value evaluate_form(const Node& node);
    Value evaluate_name(const Node& node);
    Value evaluate_constant(const Node& node);
    Value evaluate_dict(const Node& node);
    Value evaluate_comparison(const Node& node);
    bool compared(const std::string& symbol, const Value& a, const Value& b);
    Value evaluate_unary(const Node& node);
    Value evaluate_join(const Node& node);
    Value evaluate_slice(const Node& node);
    Value evaluate_call(const Node& node);
    Value call_global(const std::string& name, const Arguments& arguments);
    Value make_namespace(const Arguments& arguments);
    Value make_range(const Arguments& arguments);
    Arguments arguments_of(const Node& node);
    Values all_of(const Node& node);
    Value own(Value value);  ///< gives a result the origin of the template's text

    const RenderOptions& options_;
    Runtime runtime_;
    std::vector<Origin> origins_;
    std::map<size_t, uint32_t> template_origins_;
    std::deque<Scope> scopes_;
    Scope* scope_ = nullptr;
    std::vector<Value> namespaces_;  // emptied at the end: they may refer to themselves
    Value captured_;                 // what the filter chain of a block begins with
    Text output_;
    Text* out_ = &output_;
    uint32_t generation_ = 0;
    size_t message_ = Origin::kNoMessage;
    const Node* at_ = nullptr;
};

}  // namespace colonnade::jinja
