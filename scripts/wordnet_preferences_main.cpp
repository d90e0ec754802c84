// wordnet_preferences: a data set to learn preferences from. Turns WordNet 3.0 (Debian's wordnet-base) into pairs of
// answers, the meaning of a word and that of another one:
//
//     {"prompt":[{"role":"user","content":"What does the noun dog mean?"}],
//      "chosen":[{"role":"assistant","content":"Dog means a member of the genus Canis ..."}],
//      "rejected":[{"role":"assistant","content":"Dog means the flight of stairs between two floors."}]}
//
// The chosen answer is wordnet_chat's. The rejected one is the first sense of another word of the same part of speech,
// drawn by a hash of the question from those on the same side of the split, and never a sense that the word has itself.
// So both answers read alike and come from one pool of definitions: what tells them apart is whether they fit the
// word. Training and validation are split by word as in wordnet_chat, with the same words held out for the same share.
// Samples are ordered by a hash of the question: any prefix is a fair subset.

#include <set>
#include <tuple>

#include "engine/io/command_line.h"
#include "engine/io/json.h"
#include "scripts/wordnet_questions.h"

namespace colonnade {
namespace {

struct Pair {
    uint64_t order = 0;
    size_t part = 0;
    bool validation = false;
    std::string question, chosen, rejected;
};

struct Options {
    std::string wordnet = "/usr/share/wordnet", train, validation;
    double validation_share = 0.03;
    size_t limit = 0;
};

/// The definitions of first senses on one side of the split, for one part of speech: each once, in order of the words.
struct Pool {
    std::vector<std::string> definitions;
    std::set<std::string> known;

    void add(const std::string& definition) {
        if (!definition.empty() && known.insert(definition).second) definitions.push_back(definition);
    }
};

/// The first definition from place hash % size on that is none of the word's own; nothing where all are.
const std::string* draw(const Pool& pool, uint64_t hash, const std::vector<const Synset*>& senses) {
    const auto own = [&](const std::string& definition) {
        return std::any_of(senses.begin(), senses.end(),
                           [&](const Synset* sense) { return sense->gloss.definition == definition; });
    };
    const size_t size = pool.definitions.size();
    for (size_t i = 0; i < size; ++i) {
        const std::string& definition = pool.definitions[(hash % size + i) % size];
        if (!own(definition)) return &definition;
    }
    return nullptr;
}

class PairMaker {
  public:
    explicit PairMaker(const WordNet& wordnet, double validation_share)
        : words_(wordnet.words), validation_(held_out(wordnet.words, validation_share)) {
        for_each_meaning([&](size_t part, bool validation, const std::string&, const std::string& definition,
                             const auto&) { pools_[validation][part].add(definition); });
    }

    /// In order of their hashes.
    std::vector<Pair> pairs() {
        std::vector<Pair> pairs;
        for_each_meaning([&](size_t part, bool validation, const std::string& word, const std::string& definition,
                             const std::vector<const Synset*>& senses) {
            const std::string question = meaning_question(word, part);
            const uint64_t order = hash_of(question);
            // Another hash than that of the order: neighbours in the file would draw neighbours.
            const std::string* other = draw(pools_[validation][part], hash_of("rejected: " + question), senses);
            if (!other) {
                ++alone_;
                return;
            }
            pairs.push_back({order, part, validation, question, sentence(meaning_answer(word, part, definition)),
                             sentence(meaning_answer(word, part, *other))});
        });
        std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
            return std::tie(a.order, a.question, a.chosen) < std::tie(b.order, b.question, b.chosen);
        });
        return pairs;
    }
    /// Meanings without any other to compare with, which pairs() left out.
    int64_t alone() const { return alone_; }

  private:
    /// Calls body(part, validation, word, definition of the first sense, all senses) for every word and part of speech.
    template <typename Body>
    void for_each_meaning(const Body& body) {
        size_t index = 0;
        for (const auto& [lemma, word] : words_) {
            const bool validation = validation_[index++];
            for (size_t part = 0; part < kParts.size(); ++part) {
                const auto& senses = word.senses[part];
                if (senses.empty() || senses[0]->gloss.definition.empty()) continue;
                body(part, validation, spelling(lemma, *senses[0]), senses[0]->gloss.definition, senses);
            }
        }
    }

    const Words& words_;
    const std::vector<bool> validation_;
    std::array<std::array<Pool, kParts.size()>, 2> pools_;  ///< [validation][part]
    int64_t alone_ = 0;
};

void print_counts(const std::vector<Pair>& pairs, int64_t alone) {
    std::array<std::array<int64_t, 2>, kParts.size() + 1> counts{};
    for (const Pair& pair : pairs) {
        ++counts[pair.part][pair.validation];
        ++counts.back()[pair.validation];
    }
    fmt::print("{:<24}{:>10}{:>12}\n", "pair of meanings", "train", "validation");
    for (size_t part = 0; part <= kParts.size(); ++part)
        fmt::print("{:<24}{:>10}{:>12}\n", part < kParts.size() ? kParts[part].with_article : "all", counts[part][0],
                   counts[part][1]);
    if (alone > 0) fmt::print("left out, as no other word could give the rejected meaning: {}\n", alone);
}

void write_pairs(const Options& options, const std::vector<Pair>& pairs) {
    std::string train, validation;
    for (const Pair& pair : pairs) {
        const auto messages = [](const char* role, const std::string& content) {
            return Json::array({Json{{"role", role}, {"content", content}}});
        };
        const Json row = {{"prompt", messages("user", pair.question)},
                          {"chosen", messages("assistant", pair.chosen)},
                          {"rejected", messages("assistant", pair.rejected)}};
        (pair.validation ? validation : train) += row.dump() + '\n';
    }
    write_file_atomically(options.train, train);
    write_file_atomically(options.validation, validation);
}

int run(int argc, char** argv) {
    Options options;
    CLI::App app("WordNet as preference JSONL: the meaning of a word against that of another one");
    app.add_option("--wordnet", options.wordnet, "folder with WordNet 3.0's data.* and index.*")->capture_default_str();
    app.add_option("--train", options.train, "JSONL to write for training")->required();
    app.add_option("--validation", options.validation, "JSONL to write for validation")->required();
    app.add_option("--validation-share", options.validation_share, "share of the words kept for validation")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--limit", options.limit, "write at most this many pairs in all; 0: all")->capture_default_str();
    return run_command("wordnet_preferences", app, argc, argv, [&] {
        const WordNet wordnet(options.wordnet);
        PairMaker maker(wordnet, options.validation_share);
        std::vector<Pair> pairs = maker.pairs();
        if (options.limit > 0 && options.limit < pairs.size()) pairs.resize(options.limit);
        write_pairs(options, pairs);
        print_counts(pairs, maker.alone());
        return 0;
    });
}

}  // namespace
}  // namespace colonnade

int main(int argc, char** argv) {
    return colonnade::run(argc, argv);
}
