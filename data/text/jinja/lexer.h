#pragma once
// Tokens of a template, with Jinja's rules of white space: trim_blocks and lstrip_blocks are on, as in transformers.

#include <string>
#include <vector>

namespace colonnade::jinja {

/// A place in the source, both numbers from 1; the column counts characters.
struct Place {
    size_t line = 1, column = 1;
};

struct Token {
    enum class Type { data, print_begin, print_end, block_begin, block_end, name, integer, real, string, symbol, end };
    Type type = Type::end;
    std::string text;  ///< strings: without quotes and escapes
    Place place;
};

/// Splits a source into tokens; the last one has type `end`. Throws Exit::config with "name:line:column: ...".
std::vector<Token> tokenize(const std::string& source, const std::string& name);

}  // namespace colonnade::jinja
