// Whether a template reads messages in order, from its tree alone.

#include <algorithm>
#include <set>

#include "data/text/jinja/parser.h"
#include "data/text/jinja/template.h"

namespace colonnade::jinja {
namespace {

/// The loop that `loop` means.
enum class Around { nothing, messages, others };

class ReadingOrder {
  public:
    bool is_forward(const Node& tree) {
        visit(&tree, Around::nothing);
        return forward_ && loops_ <= 1;
    }

  private:
    /// `messages`, messages[n:], a variable that was set to one of them, or a choice between such lists.
    bool is_list(const Node& node) {
        if (node.form == Form::name) return lists_.contains(node.word);
        if (node.form == Form::slice)
            return is_list(*node.parts[0]) && node.parts[1] && is_count(*node.parts[1]) && !node.parts[2] &&
                   !node.parts[3];
        if (node.form == Form::choice)
            return node.parts.size() == 3 && node.parts[2] && is_list(*node.parts[0]) && is_list(*node.parts[2]);
        return false;
    }
    static bool is_count(const Node& node) {
        return node.form == Form::constant && node.value.is(Kind::integer) && node.value.as_integer() >= 0;
    }
    static bool is_name(const Node& node, const char* word) { return node.form == Form::name && node.word == word; }

    void visit_list(const Node& list, Around around) {
        if (list.form == Form::choice) visit(list.parts[1].get(), around);
    }

    void visit(const Node* node, Around around) {
        if (node == nullptr) return;
        const auto visit_parts = [&](Around inside) {
            for (const NodePtr& part : node->parts) visit(part.get(), inside);
        };
        switch (node->form) {
            case Form::name:
                forward_ = forward_ && !is_list(*node) && node->word != "loop";
                return;
            case Form::attribute:
                if (!is_name(*node->parts[0], "loop")) return visit_parts(around);
                forward_ = forward_ && (around == Around::others || kKnownSoFar.contains(node->word));
                return;
            case Form::item: {
                const bool first = whole_ && is_name(*node->parts[0], "messages") && is_count(*node->parts[1]) &&
                                   node->parts[1]->value.as_integer() == 0;
                if (!first) visit_parts(around);
                return;
            }
            case Form::assignment:
                if (node->parts[0]->form != Form::name || !is_list(*node->parts[1])) return visit_parts(around);
                lists_.insert(node->parts[0]->word);
                whole_ = whole_ && node->parts[0]->word != "messages";
                return visit_list(*node->parts[1], around);
            case Form::loop:
                return visit_loop(*node, around);
            case Form::capture:
            case Form::macro:
            case Form::filter_block: {  // their text may be changed afterwards
                const int loops = loops_;
                visit_parts(around);
                forward_ = forward_ && loops_ == loops;
                return;
            }
            default:
                return visit_parts(around);
        }
    }

    void visit_loop(const Node& node, Around around) {
        const Node &target = *node.parts[0], &iterated = *node.parts[1];
        visit(&target, around);  // a target that hides `messages` or `loop`
        const bool over_messages = is_list(iterated);
        if (over_messages) {
            visit_list(iterated, around);
            ++loops_;
            forward_ = forward_ && around == Around::nothing;
        } else {
            visit(&iterated, around);
        }
        const Around inside = over_messages ? Around::messages : Around::others;
        for (size_t i = 2; i < node.parts.size(); ++i) visit(node.parts[i].get(), inside);
    }

    /// What a loop says about its present and its past.
    static inline const std::set<std::string> kKnownSoFar = {"first", "index", "index0", "previtem", "depth", "depth0"};

    std::set<std::string> lists_ = {"messages"};
    bool whole_ = true;  ///< `messages` are all of them, so that the first one is there at any length
    int loops_ = 0;      ///< over messages
    bool forward_ = true;
};

}  // namespace

bool Template::reads_forward() const {
    return ReadingOrder().is_forward(*tree_);
}

}  // namespace colonnade::jinja
