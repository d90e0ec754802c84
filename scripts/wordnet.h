#pragma once
// WordNet: the dictionary WordNet 3.0 (https://wordnet.princeton.edu, Debian's wordnet-base) in memory. Synsets come
// from data.noun, .verb, .adj and .adv, the senses of every lemma from index.*. Formats: wndb(5WN). Errors are
// Exit::data with file and line.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {

struct PartOfSpeech {
    const char* file;  ///< suffix of data.* and index.*
    const char* name;
    const char* with_article;
};
inline constexpr std::array<PartOfSpeech, 4> parts_of_speech{{{"noun", "noun", "a noun"},
                                                              {"verb", "verb", "a verb"},
                                                              {"adj", "adjective", "an adjective"},
                                                              {"adv", "adverb", "an adverb"}}};
inline constexpr size_t noun = 0, verb = 1;

// --- Text ------------------------------------------------------------------------------------------------------------

inline bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
inline char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

inline bool is_one_of(char c, std::string_view set) {
    return set.find(c) != std::string_view::npos;
}

inline std::string lower(std::string text) {
    for (char& c : text) c = lower(c);
    return text;
}

/// Trims, merges runs of blanks, and replaces the opening quote of `to' by an apostrophe.
inline std::string tidy(std::string_view text) {
    std::string out;
    for (char c : text) {
        if (c == ' ' && (out.empty() || out.back() == ' ')) continue;
        out += c == '`' ? '\'' : c;
    }
    if (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
}

/// "galore(ip)" -> "galore", "take_a_breath" -> "take a breath".
inline std::string plain_word(std::string_view word) {
    std::string out(word.substr(0, word.find('(')));
    std::replace(out.begin(), out.end(), '_', ' ');
    return out;
}

/// Whether a word consists of letters, blanks, hyphens, apostrophes and full stops: no years, formulas or codes.
inline bool speakable(std::string_view word) {
    return !word.empty() && is_letter(word[0]) &&
           std::all_of(word.begin(), word.end(), [](char c) { return is_letter(c) || is_one_of(c, " -'."); });
}

// --- Glosses ---------------------------------------------------------------------------------------------------------

struct Gloss {
    std::string definition;
    std::vector<std::string> examples;
};

/// A gloss lists definitions, then quoted examples, some with their author: def; def; "example"; "example"- Author.
/// Some glosses have an example after a colon or comma instead. Quotes within a definition (as in "make strides") stay.
inline Gloss parse_gloss(std::string_view text) {
    Gloss gloss;
    if (std::count(text.begin(), text.end(), '"') % 2) text = text.substr(0, text.find('"'));  // drop an unclosed quote
    while (!text.empty()) {
        bool quoted = false;
        size_t end = 0;
        while (end < text.size() && (quoted || text[end] != ';')) quoted ^= text[end++] == '"';
        const std::string part = tidy(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));

        std::string definition = part;
        if (const size_t open = part.find('"'); open != std::string::npos) {
            std::string before = tidy(std::string_view(part).substr(0, open));
            if (before.empty() || before.back() == ':' || before.back() == ',') {
                gloss.examples.push_back(
                    tidy(std::string_view(part).substr(open + 1, part.find('"', open + 1) - open - 1)));
                if (!before.empty()) before.pop_back();
                definition = std::move(before);
            }
        }
        if (definition.empty()) continue;
        if (!gloss.definition.empty()) gloss.definition += "; ";
        gloss.definition += definition;
    }
    while (!gloss.definition.empty() && is_one_of(gloss.definition.back(), " :,")) gloss.definition.pop_back();
    return gloss;
}

// --- The database ----------------------------------------------------------------------------------------------------

struct Synset {
    std::vector<std::string> words;
    std::vector<int64_t> kinds;      ///< offsets of hypernyms
    std::vector<int64_t> instances;  ///< offsets of the synsets of which this is an instance
    Gloss gloss;
};
using Synsets = std::unordered_map<int64_t, Synset>;  ///< by byte offset in data.<part>

/// The blank-separated fields of one line.
class LineFields {
  public:
    LineFields(std::string_view line, const std::string& path, int64_t number)
        : rest_(line), path_(path), number_(number) {}
    std::string_view next(const char* what) {
        rest_.remove_prefix(std::min(rest_.find_first_not_of(' '), rest_.size()));
        const std::string_view field = rest_.substr(0, rest_.find(' '));
        if (field.empty()) fail(Exit::data, "{}:{}: expected {}, found the end of the line", path_, number_, what);
        rest_.remove_prefix(field.size());
        return field;
    }
    int64_t integer(const char* what, int base = 10) {
        const std::string_view field = next(what);
        int64_t value = -1;
        const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, base);
        if (error != std::errc() || end != field.data() + field.size() || value < 0) {
            fail(Exit::data, "{}:{}: expected {}, found '{}'", path_, number_, what, field);
        }
        return value;
    }
    std::string_view rest() const { return rest_; }
    std::string place() const { return fmt::format("{}:{}", path_, number_); }

  private:
    std::string_view rest_;
    const std::string& path_;
    int64_t number_;
};

/// Calls body(fields) for every line except those of the licence, which begin with two blanks.
template <typename Body>
void for_each_line(const std::string& path, const Body& body) {
    if (!std::filesystem::is_regular_file(path)) {
        fail(Exit::data, "{}: no such file; install the package wordnet-base, or pass WordNet's folder with --wordnet",
             path);
    }
    const std::string text = read_file(path);
    int64_t number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string_view line(text.data() + at, end - at);
        at = end + 1;
        ++number;
        if (line.empty() || line.starts_with("  ")) continue;
        if (std::any_of(line.begin(), line.end(), [](char c) { return c < ' ' || c > '~'; })) {
            fail(Exit::data, "{}:{}: expected plain ASCII, found another byte", path, number);
        }
        LineFields fields(line, path, number);
        body(fields);
    }
}

inline Synsets read_synsets(const std::string& path) {
    Synsets synsets;
    for_each_line(path, [&](LineFields& fields) {
        Synset& synset = synsets[fields.integer("a synset offset")];
        fields.next("a lexicographer file number");
        fields.next("a synset type");
        for (int64_t i = fields.integer("a hexadecimal count of words", 16); i > 0; --i) {
            synset.words.push_back(plain_word(fields.next("a word")));
            fields.next("a lexical id");
        }
        if (synset.words.empty()) fail(Exit::data, "{}: expected at least one word, found none", fields.place());
        for (int64_t i = fields.integer("a count of pointers"); i > 0; --i) {
            const std::string_view symbol = fields.next("a pointer symbol");
            const int64_t target = fields.integer("a synset offset");
            fields.next("a part of speech");
            fields.next("source and target");
            if (symbol == "@") synset.kinds.push_back(target);
            if (symbol == "@i") synset.instances.push_back(target);
        }
        const size_t bar = fields.rest().find('|');
        if (bar == std::string_view::npos)
            fail(Exit::data, "{}: expected a gloss after '|', found none", fields.place());
        synset.gloss = parse_gloss(fields.rest().substr(bar + 1));
    });
    return synsets;
}

/// A lemma with its senses in each part of speech, the most frequent sense first.
struct Word {
    std::array<std::vector<const Synset*>, parts_of_speech.size()> senses;
};
using Words = std::map<std::string, Word>;  ///< by lemma: lower case, blanks for underscores

struct WordNet {
    explicit WordNet(const std::string& folder) {
        for (size_t part = 0; part < parts_of_speech.size(); ++part) {
            synsets[part] = read_synsets(fmt::format("{}/data.{}", folder, parts_of_speech[part].file));
            read_index(fmt::format("{}/index.{}", folder, parts_of_speech[part].file), part);
        }
    }
    WordNet(const WordNet&) = delete;
    WordNet& operator=(const WordNet&) = delete;

    std::array<Synsets, parts_of_speech.size()> synsets;
    Words words;  ///< only speakable() words

  private:
    void read_index(const std::string& path, size_t part) {
        for_each_line(path, [&](LineFields& fields) {
            const std::string lemma = plain_word(fields.next("a lemma"));
            fields.next("a part of speech");
            const int64_t senses = fields.integer("a count of synsets");
            for (int64_t i = fields.integer("a count of pointers"); i > 0; --i) fields.next("a pointer symbol");
            fields.next("a count of senses");
            fields.next("a count of tagged senses");
            for (int64_t i = 0; i < senses; ++i) {
                const int64_t offset = fields.integer("a synset offset");
                const auto found = synsets[part].find(offset);
                if (found == synsets[part].end()) {
                    fail(Exit::data, "{}: no synset at offset {} in data.{}", fields.place(), offset,
                         parts_of_speech[part].file);
                }
                if (speakable(lemma)) words[lemma].senses[part].push_back(&found->second);
            }
        });
    }
};

/// The spelling of a lemma in its synset: Paris, not paris.
inline std::string spelling(const std::string& lemma, const Synset& synset) {
    const auto found = std::find_if(synset.words.begin(), synset.words.end(),
                                    [&](const std::string& word) { return lower(word) == lemma; });
    return found == synset.words.end() ? lemma : *found;
}

}  // namespace colonnade
