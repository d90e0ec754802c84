#pragma once
// Shared by the data sets made from WordNet: sentences, questions about meaning, and the words held out for validation.

#include <numeric>

#include "scripts/text_hash.h"
#include "scripts/wordnet.h"

namespace colonnade {

/// Capitalises the first letter (pH stays pH) and adds a full stop.
inline std::string sentence(std::string text) {
    const bool second_upper = text.size() > 1 && is_letter(text[1]) && text[1] != lower(text[1]);
    if (is_letter(text[0]) && text[0] == lower(text[0]) && !second_upper)
        text[0] = static_cast<char>(text[0] - ('a' - 'A'));
    if (!is_one_of(text.back(), ".!?")) text += '.';
    return text;
}

inline std::string meaning_question(const std::string& word, size_t part) {
    return fmt::format("What does the {} {} mean?", parts_of_speech[part].name, word);
}

/// "dog means a tame canid", "to chase means to go after"; sentence() makes it a sentence.
inline std::string meaning_answer(const std::string& word, size_t part, const std::string& definition) {
    const bool bare_verb = part == verb && definition[0] != '(' && !definition.starts_with("to ");
    return fmt::format("{}{} means {}{}", part == verb ? "to " : "", word, bare_verb ? "to " : "", definition);
}

/// For every word, in order: the lemma that represents all words linked to it by the definition of a first sense.
inline std::vector<std::string> groups(const Words& words) {
    std::vector<size_t> parent(words.size());
    std::iota(parent.begin(), parent.end(), size_t{0});
    const auto root = [&](size_t i) {
        while (parent[i] != i) i = parent[i] = parent[parent[i]];
        return i;
    };
    std::vector<std::string> lemmas;
    std::unordered_map<std::string_view, size_t> first_word;
    for (const auto& [lemma, word] : words) {
        const size_t index = lemmas.size();
        lemmas.push_back(lemma);
        for (const auto& senses : word.senses) {
            if (senses.empty()) continue;
            const size_t a = root(first_word.try_emplace(senses[0]->gloss.definition, index).first->second),
                         b = root(index);
            parent[std::max(a, b)] = std::min(a, b);
        }
    }
    std::vector<std::string> out;
    for (size_t i = 0; i < lemmas.size(); ++i) out.push_back(lemmas[root(i)]);
    return out;
}

/// For every word, in order: whether it is held out. `share` is the fraction of words; a group is held out as a whole.
inline std::vector<bool> held_out(const Words& words, double share) {
    std::vector<bool> out;
    for (const std::string& group : groups(words)) out.push_back(share_of(group) < share);
    return out;
}

}  // namespace colonnade
