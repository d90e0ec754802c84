#pragma once
// The tree of a template.

#include <memory>
#include <string>
#include <vector>

#include "data/text/jinja/lexer.h"
#include "data/text/jinja/value.h"

namespace colonnade::jinja {

enum class Form : uint8_t {
    // expressions
    constant,    // value
    name,        // word
    list,        // parts
    tuple,       // parts
    dict,        // parts: key, value, key, value, ...
    choice,      // parts: then, condition, else (may be absent)
    both,        // and
    either,      // or
    negation,    // not
    comparison,  // parts; words: the operator before each part but the first
    binary,      // word: the operator
    unary,       // word: + or -
    join,        // parts joined by ~
    attribute,   // parts[0].word
    item,        // parts[0][parts[1]]
    slice,       // parts[0][parts[1]:parts[2]:parts[3]]; null when absent
    call,        // parts[0](parts[1..]); words: the keyword of each argument, "" for none
    filter,      // parts[0] | word(parts[1..])
    test,        // parts[0] is word(parts[1..])
    // statements
    block,         // parts in order
    data,          // value: text of the template
    print,         // {{ parts[0] }}
    branch,        // parts: condition, block, condition, block, ..., else block
    loop,          // parts: target, iterated, condition (may be null), block, else block (may be null)
    assignment,    // parts: target, value
    capture,       // {% set target %}parts[1]{% endset %}; parts[2]: a filter chain or null
    macro,         // word; words: parameters; parts[0]: block, then defaults of the last parameters
    generation,    // parts[0]
    filter_block,  // parts[0]: the filter chain, parts[1]: block
    stop,          // break
    skip,          // continue
    captured,      // expression: the text that a filter chain of a block begins with
};

struct Node;
using NodePtr = std::unique_ptr<Node>;

struct Node {
    Form form;
    Place place;
    std::string word;
    std::vector<std::string> words;
    Value value;
    std::vector<NodePtr> parts;
    size_t depth = 1;
};

/// Parses a template. Throws Exit::config with "name:line:column: ..." for a syntax error and for statements that the
/// interpreter does not know.
NodePtr parse_template(const std::string& source, const std::string& name);

}  // namespace colonnade::jinja
