#pragma once
// Mutations of files for fuzzing: of bytes, of words, and of JSON values. The same seed gives the same mutation.

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "engine/io/json.h"

namespace colonnade {

using Random = std::mt19937_64;

inline size_t below(Random& random, size_t n) {
    return n == 0 ? 0 : random() % n;
}

/// Changes some bytes: single ones, numbers of 1 to 8 bytes, pieces dropped, repeated, moved or taken from `other`.
std::string mutate_bytes(std::string bytes, const std::string& other, Random& random);

/// Changes some words of a text. Pieces between spaces and brackets are dropped, doubled, swapped, nested up to thousands
/// of times, or replaced by one of `words`, or by a piece of `other`.
std::string mutate_words(const std::string& text, const std::string& other, const std::vector<std::string>& words,
                         Random& random);

/// One to three values become others, of any type; keys and entries are dropped, doubled and renamed.
void mutate_json(Json& json, Random& random);

/// A mutation that knows what a format consists of. Bytes that are not of the format are mutated as bytes.
using Mutation = std::function<std::string(const std::string& bytes, const std::string& other, Random& random)>;

Mutation json_mutation();        ///< a JSON text: its values
Mutation json_lines_mutation();  ///< JSON lines: the values of one line, or the order of lines
/// A part of the file is taken out, mutated and put back.
struct Envelope {
    std::function<std::string(const std::string& bytes)> open;  ///< may throw: then the bytes are mutated
    std::function<std::string(const std::string& inner, const std::string& bytes)> seal;
};
Mutation mutation_within(Envelope envelope, Mutation inner);

Envelope safetensors_header();  ///< its JSON; the length in front is right again
Envelope gzip_content();
Envelope zstd_content();

}  // namespace colonnade
