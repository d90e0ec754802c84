#include "data/text/jinja/parser.h"

#include "data/text/jinja/expression_parser.h"

namespace colonnade::jinja {
namespace {

class Parser : ExpressionParser {
  public:
    Parser(const std::string& source, const std::string& name) : ExpressionParser(source, name) {}

    NodePtr run() { return body({}); }

  private:
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

    std::string end_;
    size_t loops_ = 0;
};

}  // namespace

NodePtr parse_template(const std::string& source, const std::string& name) {
    return Parser(source, name).run();
}

}  // namespace colonnade::jinja
