#include "data/text/jinja/expression_parser.h"

#include <charconv>

namespace colonnade::jinja {

NodePtr ExpressionParser::tuple_or(NodePtr (ExpressionParser::*part)()) {
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

NodePtr ExpressionParser::expression() {
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

NodePtr ExpressionParser::either() {
    NodePtr node = both();
    while (is_name("or")) {
        const Place place = take().place;
        node = make_of(Form::either, place, "", std::move(node), both());
    }
    return node;
}

NodePtr ExpressionParser::both() {
    NodePtr node = negation();
    while (is_name("and")) {
        const Place place = take().place;
        node = make_of(Form::both, place, "", std::move(node), negation());
    }
    return node;
}

NodePtr ExpressionParser::negation() {
    if (!is_name("not")) return comparison();
    const Level level(*this);
    const Place place = take().place;
    return make_of(Form::negation, place, "", negation());
}

std::string ExpressionParser::comparison_operator() {
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

NodePtr ExpressionParser::comparison() {
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

NodePtr ExpressionParser::left_chain(NodePtr (ExpressionParser::*part)(),
                                     std::initializer_list<std::string_view> symbols) {
    NodePtr node = (this->*part)();
    while (now().type == Type::symbol && std::find(symbols.begin(), symbols.end(), now().text) != symbols.end()) {
        const Token token = take();
        node = make_of(Form::binary, token.place, token.text, std::move(node), (this->*part)());
    }
    return node;
}

NodePtr ExpressionParser::join() {
    NodePtr first = product();
    if (!is_symbol("~")) return first;
    NodePtr node = make_of(Form::join, now().place, "", std::move(first));
    while (accept_symbol("~")) add(*node, product());
    return node;
}

NodePtr ExpressionParser::power() {
    NodePtr node = unary();
    if (is_symbol("**")) refuse(now().place, "the operator ** is not supported");
    return node;
}

NodePtr ExpressionParser::signed_primary() {
    const Level level(*this);
    const Place place = now().place;
    for (const char* sign : {"-", "+"})
        if (accept_symbol(sign)) return make_of(Form::unary, place, sign, signed_primary());
    return postfix(primary());
}

NodePtr ExpressionParser::number(const Token& token) {
    const char *begin = token.text.data(), *end = begin + token.text.size();
    double real = 0;
    int64_t integer = 0;
    const bool whole = token.type == Type::integer;
    if ((whole ? std::from_chars(begin, end, integer) : std::from_chars(begin, end, real)).ec != std::errc())
        refuse(token.place, "the number {} exceeds 64 bits", token.text);
    return constant(token.place, whole ? Value::integer(integer) : Value::real(real));
}

NodePtr ExpressionParser::primary() {
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

NodePtr ExpressionParser::list(Place place) {
    NodePtr node = make(Form::list, place);
    while (!is_symbol("]")) {
        add(*node, expression());
        if (!accept_symbol(",")) break;
    }
    expect_symbol("]");
    return node;
}

NodePtr ExpressionParser::dict(Place place) {
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

NodePtr ExpressionParser::postfix(NodePtr node) {
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

NodePtr ExpressionParser::attribute(NodePtr node, Place place) {
    if (now().type == Type::integer) return make_of(Form::item, place, "", std::move(node), number(take()));
    return make_of(Form::attribute, place, expect_name(), std::move(node));
}

NodePtr ExpressionParser::subscript(NodePtr node, Place place) {
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

NodePtr ExpressionParser::call(NodePtr node) {
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

NodePtr ExpressionParser::filters(NodePtr node) {
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

NodePtr ExpressionParser::filter(NodePtr node, Place place) {
    std::string name = expect_name();
    while (accept_symbol(".")) name += "." + expect_name();
    node = make_of(Form::filter, place, name, std::move(node));
    return is_symbol("(") ? call(std::move(node)) : std::move(node);
}

NodePtr ExpressionParser::test(NodePtr node, Place place) {
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

bool ExpressionParser::is_operand() const {
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

}  // namespace colonnade::jinja
