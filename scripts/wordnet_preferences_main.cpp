// wordnet_preferences: makes a preference data set. Converts WordNet 3.0 (Debian's wordnet-base) to pairs of answers,
// the meaning of a word and the meaning of another word:
//
//     {"prompt":[{"role":"user","content":"What does the noun dog mean?"}],
//      "chosen":[{"role":"assistant","content":"Dog means a member of the genus Canis ..."}],
//      "rejected":[{"role":"assistant","content":"Dog means the flight of stairs between two floors."}]}
//
// The chosen answer is that of wordnet_chat. The rejected answer is the first sense of another word of the same part of
// speech and on the same side of the split, drawn by a hash of the question; it is never a sense of the word itself. So
// both answers have the same style and come from one pool of definitions: only their fit to the word differs. Training
// and validation are split by word as in wordnet_chat, with the same words held out for the same fraction. Samples are
// ordered by a hash of the question: any prefix is a fair subset.

#include <set>
#include <tuple>

#include "engine/io/json.h"
#include "engine/program/command_line.h"
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

/// Definitions of first senses on one side of the split, for one part of speech: each once, in the order of the words.
struct Pool {
    std::vector<std::string> definitions;
    std::set<std::string> known;

    void add(const std::string& definition) {
        if (!definition.empty() && known.insert(definition).second) definitions.push_back(definition);
    }
};

/// First definition from index hash % size on that is not one of the word's own; null if there is none.
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

    /// Returns the pairs in the order of their hashes.
    std::vector<Pair> pairs() {
        std::vector<Pair> pairs;
        for_each_meaning([&](size_t part, bool validation, const std::string& word, const std::string& definition,
                             const std::vector<const Synset*>& senses) {
            const std::string question = meaning_question(word, part);
            const uint64_t order = hash_of(question);
            // A different hash than `order`, because neighbours in the file would draw neighbours.
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
    /// Number of meanings that pairs() left out because there is no other to compare with.
    int64_t alone() const { return alone_; }

  private:
    /// Calls body(part, validation, word, definition of the first sense, all senses) for every word and part of speech.
    template <typename Body>
    void for_each_meaning(const Body& body) {
        size_t index = 0;
        for (const auto& [lemma, word] : words_) {
            const bool validation = validation_[index++];
            for (size_t part = 0; part < parts_of_speech.size(); ++part) {
                const auto& senses = word.senses[part];
                if (senses.empty() || senses[0]->gloss.definition.empty()) continue;
                body(part, validation, spelling(lemma, *senses[0]), senses[0]->gloss.definition, senses);
            }
        }
    }

    const Words& words_;
    const std::vector<bool> validation_;
    std::array<std::array<Pool, parts_of_speech.size()>, 2> pools_;  ///< [validation][part]
    int64_t alone_ = 0;
};

void print_counts(const std::vector<Pair>& pairs, int64_t alone) {
    std::array<std::array<int64_t, 2>, parts_of_speech.size() + 1> counts{};
    for (const Pair& pair : pairs) {
        ++counts[pair.part][pair.validation];
        ++counts.back()[pair.validation];
    }
    fmt::print("{:<24}{:>10}{:>12}\n", "pair of meanings", "train", "validation");
    for (size_t part = 0; part <= parts_of_speech.size(); ++part)
        fmt::print("{:<24}{:>10}{:>12}\n", part < parts_of_speech.size() ? parts_of_speech[part].with_article : "all",
                   counts[part][0], counts[part][1]);
    if (alone > 0) fmt::print("left out because no other word has a rejected meaning to offer: {}\n", alone);
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
    CLI::App app("Converts WordNet to preference JSONL: the meaning of a word against the meaning of another word");
    app.add_option("--wordnet", options.wordnet, "folder with the data.* and index.* files of WordNet 3.0")
        ->capture_default_str();
    app.add_option("--train", options.train, "output: JSONL for training")->required();
    app.add_option("--validation", options.validation, "output: JSONL for validation")->required();
    app.add_option("--validation-share", options.validation_share, "fraction of the words held out for validation")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--limit", options.limit, "maximum number of pairs in both files together; 0: all")
        ->capture_default_str();
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
