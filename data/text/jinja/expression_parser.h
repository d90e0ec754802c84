#pragma once
// ExpressionParser: the expressions of a template, by recursive descent over its tokens.

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "data/text/jinja/parser.h"
#include "engine/io/limits.h"

namespace colonnade::jinja {

class ExpressionParser {
  protected:
    ExpressionParser(const std::string& source, const std::string& name)
        : name_(name), tokens_(tokenize(source, name)) {}

    using Type = Token::Type;

    template <typename... Args>
    [[noreturn]] void refuse(Place at, fmt::format_string<Args...> format, Args&&... args) {
        fail(Exit::config, "{}:{}:{}: {}", name_, at.line, at.column, fmt::format(format, std::forward<Args>(args)...));
    }

    // Tokens.
    const Token& now() const { return tokens_[at_]; }
    const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
    const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
    bool is(Type type, std::string_view text) const { return now().type == type && now().text == text; }
    bool is_symbol(std::string_view text) const { return is(Type::symbol, text); }
    bool is_name(std::string_view text) const { return is(Type::name, text); }
    bool accept(Type type, std::string_view text) {
        if (!is(type, text)) return false;
        take();
        return true;
    }
    bool accept_symbol(std::string_view text) { return accept(Type::symbol, text); }
    bool accept_name(std::string_view text) { return accept(Type::name, text); }
    std::string found() const {
        switch (now().type) {
            case Type::end:
                return "the end of the template";
            case Type::block_end:
                return "%}";
            case Type::print_end:
                return "}}";
            default:
                return "'" + now().text + "'";
        }
    }
    void expect_symbol(std::string_view text) {
        if (!accept_symbol(text)) refuse(now().place, "expected '{}', found {}", text, found());
    }
    std::string expect_name() {
        if (now().type != Type::name) refuse(now().place, "expected a name, found {}", found());
        return take().text;
    }
    void expect_block_end() {
        if (now().type != Type::block_end) refuse(now().place, "expected %}}, found {}", found());
        take();
    }

    // Nodes.
    NodePtr make(Form form, Place place, std::string word = {}) {
        auto node = std::make_unique<Node>();
        node->form = form;
        node->place = place;
        node->word = std::move(word);
        return node;
    }
    void add(Node& node, NodePtr part) {
        if (part) node.depth = std::max(node.depth, part->depth + 1);
        if (node.depth > kDepth) refuse(node.place, "expressions or blocks nested deeper than {}", kDepth);
        node.parts.push_back(std::move(part));
    }
    template <typename... Parts>
    NodePtr make_of(Form form, Place place, std::string word, Parts... parts) {
        NodePtr node = make(form, place, std::move(word));
        (add(*node, std::move(parts)), ...);
        return node;
    }
    NodePtr constant(Place place, Value value) {
        NodePtr node = make(Form::constant, place);
        node->value = std::move(value);
        return node;
    }

    /// Counts recursion of the parser itself.
    struct Level {
        explicit Level(ExpressionParser& owner) : parser(owner) {
            if (++parser.level_ > kDepth)
                parser.refuse(parser.now().place, "expressions or blocks nested deeper than {}", kDepth);
        }
        ~Level() { --parser.level_; }
        ExpressionParser& parser;
    };

    // Expressions, loosest first.
    NodePtr tuple_or_expression() { return tuple_or(&ExpressionParser::expression); }
    NodePtr tuple_or(NodePtr (ExpressionParser::*part)());
    NodePtr expression();
    NodePtr either();
    NodePtr both();
    NodePtr negation();
    std::string comparison_operator();
    NodePtr comparison();
    NodePtr left_chain(NodePtr (ExpressionParser::*part)(), std::initializer_list<std::string_view> symbols);
    NodePtr sum() { return left_chain(&ExpressionParser::join, {"+", "-"}); }
    NodePtr product() { return left_chain(&ExpressionParser::power, {"*", "/", "//", "%"}); }
    NodePtr join();
    NodePtr power();
    NodePtr unary() { return filters(signed_primary()); }
    NodePtr signed_primary();
    NodePtr number(const Token& token);
    NodePtr primary();
    NodePtr list(Place place);
    NodePtr dict(Place place);
    NodePtr postfix(NodePtr node);
    NodePtr attribute(NodePtr node, Place place);
    NodePtr subscript(NodePtr node, Place place);
    /// Adds the arguments in parentheses to a call, filter or test.
    NodePtr call(NodePtr node);
    /// Filters, tests and calls behind an operand.
    NodePtr filters(NodePtr node);
    /// The chain of {% filter a | b %}, whose first filter has no bar.
    NodePtr filter_chain(NodePtr node) { return filters(filter(std::move(node), now().place)); }
    NodePtr filter(NodePtr node, Place place);
    NodePtr test(NodePtr node, Place place);
    /// A test may have one argument without parentheses: x is divisibleby 3.
    bool is_operand() const;

  private:
    static constexpr size_t kDepth = limits::template_depth;  // of a tree: recursion over it stays bounded

    const std::string& name_;
    const std::vector<Token> tokens_;
    size_t at_ = 0, level_ = 0;
};

}  // namespace colonnade::jinja
