#include "data/text/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string_view>

#include "engine/io/limits.h"

namespace colonnade::jinja {
namespace {

constexpr size_t kDepth = limits::template_depth;  // of a tree: recursion over it stays bounded

class Parser {
  public:
    Parser(const std::string& source, const std::string& name) : name_(name), tokens_(tokenize(source, name)) {}

    NodePtr run() { return body({}); }

  private:
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
        explicit Level(Parser& owner) : parser(owner) {
            if (++parser.level_ > kDepth)
                parser.refuse(parser.now().place, "expressions or blocks nested deeper than {}", kDepth);
        }
        ~Level() { --parser.level_; }
        Parser& parser;
    };

    // Statements. body() ends behind the name of one of the tags `ends`, which is then in end_.
    NodePtr body(std::initializer_list<std::string_view> ends) {
        const Level level(*this);
        NodePtr block = make(Form::block, now().place);
        while (now().type != Type::end) {
            if (now().type == Type::data) {
                NodePtr node = make(Form::data, now().place);
                node->value = Value::text(take().text);
                add(*block, std::move(node));
            } else if (now().type == Type::print_begin) {
                const Place place = take().place;
                add(*block, make_of(Form::print, place, "", tuple_or_expression()));
                if (now().type != Type::print_end) refuse(now().place, "expected }}}}, found {}", found());
                take();
            } else {
                const Place place = take().place;
                const std::string tag = expect_name();
                if (std::find(ends.begin(), ends.end(), tag) != ends.end()) {
                    end_ = tag;
                    return block;
                }
                add(*block, statement(tag, place));
            }
        }
        if (ends.size() > 0) refuse(block->place, "the template ends before {{% {} %}}", *(ends.end() - 1));
        return block;
    }

    NodePtr statement(const std::string& tag, Place place) {
        if (tag == "if") return branch(place);
        if (tag == "for") return loop(place);
        if (tag == "set") return set(place);
        if (tag == "macro") return macro(place);
        if (tag == "generation") {
            expect_block_end();
            NodePtr node = make_of(Form::generation, place, "", body({"endgeneration"}));
            expect_block_end();
            return node;
        }
        if (tag == "filter") {
            NodePtr chain = filter_chain(make(Form::captured, place));
            expect_block_end();
            NodePtr node = make_of(Form::filter_block, place, "", std::move(chain), body({"endfilter"}));
            expect_block_end();
            return node;
        }
        if (tag == "break" || tag == "continue") {
            if (loops_ == 0) refuse(place, "{{% {} %}} outside a loop", tag);
            expect_block_end();
            return make(tag == "break" ? Form::stop : Form::skip, place);
        }
        refuse(place, "the statement {{% {} %}} is not supported", tag);
    }

    NodePtr branch(Place place) {
        NodePtr node = make(Form::branch, place);
        do {
            add(*node, tuple_or_expression());
            expect_block_end();
            add(*node, body({"elif", "else", "endif"}));
        } while (end_ == "elif");
        if (end_ == "else") {
            expect_block_end();
            add(*node, body({"endif"}));
        }
        expect_block_end();
        return node;
    }

    NodePtr loop(Place place) {
        NodePtr node = make(Form::loop, place);
        add(*node, target());
        if (!accept_name("in")) refuse(now().place, "expected 'in', found {}", found());
        add(*node, tuple_or(&Parser::either));
        add(*node, accept_name("if") ? expression() : nullptr);
        if (is_name("recursive")) refuse(now().place, "recursive loops are not supported");
        expect_block_end();
        ++loops_;
        add(*node, body({"else", "endfor"}));
        --loops_;
        if (end_ == "else") {
            expect_block_end();
            add(*node, body({"endfor"}));
        } else {
            add(*node, nullptr);
        }
        expect_block_end();
        return node;
    }

    NodePtr set(Place place) {
        NodePtr where = target();
        if (accept_symbol("=")) {
            NodePtr node = make_of(Form::assignment, place, "", std::move(where), tuple_or_expression());
            expect_block_end();
            return node;
        }
        NodePtr chain = is_symbol("|") ? filters(make(Form::captured, place)) : nullptr;
        expect_block_end();
        NodePtr node = make_of(Form::capture, place, "", std::move(where), body({"endset"}), std::move(chain));
        expect_block_end();
        return node;
    }

    NodePtr macro(Place place) {
        NodePtr node = make(Form::macro, place, expect_name());
        std::vector<NodePtr> defaults;
        expect_symbol("(");
        while (!is_symbol(")")) {
            const std::string word = expect_name();
            if (std::find(node->words.begin(), node->words.end(), word) != node->words.end())
                refuse(now().place, "parameter '{}' is listed twice", word);
            node->words.push_back(word);
            if (accept_symbol("="))
                defaults.push_back(expression());
            else if (!defaults.empty())
                refuse(now().place, "parameter '{}' without a default follows one with a default", node->words.back());
            if (!accept_symbol(",")) break;
        }
        expect_symbol(")");
        expect_block_end();
        const size_t loops = std::exchange(loops_, 0);
        add(*node, body({"endmacro"}));
        loops_ = loops;
        for (NodePtr& each : defaults) add(*node, std::move(each));
        expect_block_end();
        return node;
    }

    NodePtr target() {
        const Place place = now().place;
        NodePtr first = one_target();
        if (!is_symbol(",")) return first;
        NodePtr node = make_of(Form::tuple, place, "", std::move(first));
        while (accept_symbol(",")) add(*node, one_target());
        return node;
    }

    NodePtr one_target() {
        const Place place = now().place;
        const Level level(*this);
        if (accept_symbol("(")) {
            NodePtr inner = target();
            expect_symbol(")");
            return inner;
        }
        NodePtr node = make(Form::name, place, expect_name());
        if (accept_symbol(".")) node = make_of(Form::attribute, place, expect_name(), std::move(node));
        return node;
    }

    // Expressions, loosest first.
    NodePtr tuple_or_expression() { return tuple_or(&Parser::expression); }
    NodePtr tuple_or(NodePtr (Parser::*part)()) {
        const Place place = now().place;
        NodePtr first = (this->*part)();
        if (!is_symbol(",")) return first;
        NodePtr node = make_of(Form::tuple, place, "", std::move(first));
        while (accept_symbol(",")) {
            if (is_symbol(")") || now().type == Type::block_end || now().type == Type::print_end) break;
            add(*node, (this->*part)());
        }
        return node;
    }

    NodePtr expression() {
        const Level level(*this);
        NodePtr node = either();
        while (is_name("if")) {
            const Place place = take().place;
            NodePtr condition = either();
            NodePtr otherwise = accept_name("else") ? expression() : nullptr;
            node = make_of(Form::choice, place, "", std::move(node), std::move(condition), std::move(otherwise));
        }
        return node;
    }

    NodePtr either() {
        NodePtr node = both();
        while (is_name("or")) {
            const Place place = take().place;
            node = make_of(Form::either, place, "", std::move(node), both());
        }
        return node;
    }

    NodePtr both() {
        NodePtr node = negation();
        while (is_name("and")) {
            const Place place = take().place;
            node = make_of(Form::both, place, "", std::move(node), negation());
        }
        return node;
    }

    NodePtr negation() {
        if (!is_name("not")) return comparison();
        const Level level(*this);
        const Place place = take().place;
        return make_of(Form::negation, place, "", negation());
    }

    std::string comparison_operator() {
        for (const char* symbol : {"==", "!=", "<=", ">=", "<", ">"})
            if (accept_symbol(symbol)) return symbol;
        if (accept_name("in")) return "in";
        if (is_name("not") && next().type == Type::name && next().text == "in") {
            take();
            take();
            return "not in";
        }
        return {};
    }

    NodePtr comparison() {
        NodePtr first = sum();
        const Place place = now().place;
        std::string symbol = comparison_operator();
        if (symbol.empty()) return first;
        NodePtr node = make_of(Form::comparison, place, "", std::move(first));
        for (; !symbol.empty(); symbol = comparison_operator()) {
            node->words.push_back(symbol);
            add(*node, sum());
        }
        return node;
    }

    NodePtr left_chain(NodePtr (Parser::*part)(), std::initializer_list<std::string_view> symbols) {
        NodePtr node = (this->*part)();
        while (now().type == Type::symbol && std::find(symbols.begin(), symbols.end(), now().text) != symbols.end()) {
            const Token token = take();
            node = make_of(Form::binary, token.place, token.text, std::move(node), (this->*part)());
        }
        return node;
    }
    NodePtr sum() { return left_chain(&Parser::join, {"+", "-"}); }
    NodePtr product() { return left_chain(&Parser::power, {"*", "/", "//", "%"}); }

    NodePtr join() {
        NodePtr first = product();
        if (!is_symbol("~")) return first;
        NodePtr node = make_of(Form::join, now().place, "", std::move(first));
        while (accept_symbol("~")) add(*node, product());
        return node;
    }

    NodePtr power() {
        NodePtr node = unary();
        if (is_symbol("**")) refuse(now().place, "the operator ** is not supported");
        return node;
    }

    NodePtr unary() { return filters(signed_primary()); }

    NodePtr signed_primary() {
        const Level level(*this);
        const Place place = now().place;
        for (const char* sign : {"-", "+"})
            if (accept_symbol(sign)) return make_of(Form::unary, place, sign, signed_primary());
        return postfix(primary());
    }

    NodePtr number(const Token& token) {
        const char *begin = token.text.data(), *end = begin + token.text.size();
        double real = 0;
        int64_t integer = 0;
        const bool whole = token.type == Type::integer;
        if ((whole ? std::from_chars(begin, end, integer) : std::from_chars(begin, end, real)).ec != std::errc())
            refuse(token.place, "the number {} exceeds 64 bits", token.text);
        return constant(token.place, whole ? Value::integer(integer) : Value::real(real));
    }

    NodePtr primary() {
        const Token token = now();
        if (token.type == Type::integer || token.type == Type::real) return number(take());
        if (token.type == Type::string) {
            std::string text;
            while (now().type == Type::string) text += take().text;
            return constant(token.place, Value::text(text));
        }
        if (token.type == Type::name) {
            take();
            if (token.text == "true" || token.text == "True") return constant(token.place, Value::boolean(true));
            if (token.text == "false" || token.text == "False") return constant(token.place, Value::boolean(false));
            if (token.text == "none" || token.text == "None") return constant(token.place, Value::none());
            return make(Form::name, token.place, token.text);
        }
        if (accept_symbol("(")) {
            if (accept_symbol(")")) return make(Form::tuple, token.place);
            NodePtr node = tuple_or_expression();
            expect_symbol(")");
            return node;
        }
        if (accept_symbol("[")) return list(token.place);
        if (accept_symbol("{")) return dict(token.place);
        refuse(token.place, "expected an expression, found {}", found());
    }

    NodePtr list(Place place) {
        NodePtr node = make(Form::list, place);
        while (!is_symbol("]")) {
            add(*node, expression());
            if (!accept_symbol(",")) break;
        }
        expect_symbol("]");
        return node;
    }

    NodePtr dict(Place place) {
        NodePtr node = make(Form::dict, place);
        while (!is_symbol("}")) {
            add(*node, expression());
            expect_symbol(":");
            add(*node, expression());
            if (!accept_symbol(",")) break;
        }
        expect_symbol("}");
        return node;
    }

    NodePtr postfix(NodePtr node) {
        while (true) {
            const Place place = now().place;
            if (accept_symbol("."))
                node = attribute(std::move(node), place);
            else if (accept_symbol("["))
                node = subscript(std::move(node), place);
            else if (is_symbol("("))
                node = call(make_of(Form::call, place, "", std::move(node)));
            else
                return node;
        }
    }

    NodePtr attribute(NodePtr node, Place place) {
        if (now().type == Type::integer) return make_of(Form::item, place, "", std::move(node), number(take()));
        return make_of(Form::attribute, place, expect_name(), std::move(node));
    }

    NodePtr subscript(NodePtr node, Place place) {
        NodePtr bounds[3];
        size_t count = 0;
        bool slice = false;
        while (!is_symbol("]")) {
            if (accept_symbol(":")) {
                slice = true;
                if (++count > 2) refuse(place, "a slice of more than three parts");
            } else {
                if (bounds[count]) refuse(now().place, "expected ']', found {}", found());
                bounds[count] = tuple_or_expression();
            }
        }
        expect_symbol("]");
        if (slice)
            return make_of(Form::slice, place, "", std::move(node), std::move(bounds[0]), std::move(bounds[1]),
                           std::move(bounds[2]));
        if (!bounds[0]) refuse(place, "an index without an expression");
        return make_of(Form::item, place, "", std::move(node), std::move(bounds[0]));
    }

    /// Adds the arguments in parentheses to a call, filter or test.
    NodePtr call(NodePtr node) {
        expect_symbol("(");
        while (!is_symbol(")")) {
            if (is_symbol("*") || is_symbol("**"))
                refuse(now().place, "arguments unpacked with '{}' are not supported", now().text);
            std::string keyword;
            if (now().type == Type::name && next().type == Type::symbol && next().text == "=") {
                keyword = take().text;
                take();
                if (std::find(node->words.begin(), node->words.end(), keyword) != node->words.end())
                    refuse(now().place, "argument '{}' is given twice", keyword);
            } else if (!node->words.empty() && !node->words.back().empty()) {
                refuse(now().place, "an argument without a name follows one with a name");
            }
            node->words.push_back(keyword);
            add(*node, expression());
            if (!accept_symbol(",")) break;
        }
        expect_symbol(")");
        return node;
    }

    /// Filters, tests and calls behind an operand.
    NodePtr filters(NodePtr node) {
        while (true) {
            const Place place = now().place;
            if (accept_symbol("|"))
                node = filter(std::move(node), place);
            else if (accept_name("is"))
                node = test(std::move(node), place);
            else if (is_symbol("("))
                node = call(make_of(Form::call, place, "", std::move(node)));
            else
                return node;
        }
    }

    /// The chain of {% filter a | b %}, whose first filter has no bar.
    NodePtr filter_chain(NodePtr node) { return filters(filter(std::move(node), now().place)); }

    NodePtr filter(NodePtr node, Place place) {
        std::string name = expect_name();
        while (accept_symbol(".")) name += "." + expect_name();
        node = make_of(Form::filter, place, name, std::move(node));
        return is_symbol("(") ? call(std::move(node)) : std::move(node);
    }

    NodePtr test(NodePtr node, Place place) {
        const bool negated = accept_name("not");
        node = make_of(Form::test, place, expect_name(), std::move(node));
        if (is_symbol("(")) {
            node = call(std::move(node));
        } else if (is_operand()) {
            node->words.emplace_back();
            add(*node, postfix(primary()));
        }
        if (negated) node = make_of(Form::negation, place, "", std::move(node));
        return node;
    }

    /// A test may have one argument without parentheses: x is divisibleby 3.
    bool is_operand() const {
        static constexpr std::string_view kWords[] = {"else", "or", "and", "is", "if", "in", "not"};
        switch (now().type) {
            case Type::name:
                return std::find(std::begin(kWords), std::end(kWords), now().text) == std::end(kWords);
            case Type::string:
            case Type::integer:
            case Type::real:
                return true;
            default:
                return is_symbol("[") || is_symbol("{");
        }
    }

    const std::string& name_;
    const std::vector<Token> tokens_;
    std::string end_;
    size_t at_ = 0, level_ = 0, loops_ = 0;
};

}  // namespace

NodePtr parse_template(const std::string& source, const std::string& name) {
    return Parser(source, name).run();
}

}  // namespace colonnade::jinja
