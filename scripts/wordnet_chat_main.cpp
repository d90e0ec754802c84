// wordnet_chat: makes the quickstart's data set. Converts WordNet 3.0 (Debian's wordnet-base) to chat JSONL:
//
//     {"messages":[{"role":"user","content":"What does the verb choke mean?"},
//                  {"role":"assistant","content":"To choke means to breathe with great difficulty, as when ..."}]}
//
// Answers use a word's first sense, which is the most frequent one. Training and validation are split by word. Words
// with the same definition of the first sense ("dog", "domestic dog") stay together, so that no definition of the
// validation file occurs in training under another name. Samples are ordered by a hash of the question: any prefix is a
// fair subset.
//
// With --shots N, N of the training samples become examples that every question stands behind:
//
//     {"prompt":[{"role":"system",...},{"role":"user",...},{"role":"assistant",...}, ..., {"role":"user",...}],
//      "completion":[{"role":"assistant","content":"To choke means to breathe with great difficulty, as when ..."}]}

#include <tuple>

#include "engine/io/json.h"
#include "engine/program/command_line.h"
#include "scripts/wordnet_questions.h"

namespace colonnade {
namespace {

// --- Sentences -----------------------------------------------------------------------------------------------------

/// "a", "a or b", "a, b or c".
std::string listed(const std::vector<std::string>& items, const char* last_joint) {
    std::string out = items[0];
    for (size_t i = 1; i < items.size(); ++i) out += (i + 1 < items.size() ? ", " : last_joint) + items[i];
    return out;
}

/// Whether the example contains the word, maybe with an ending (choke: choking), and is longer than a fragment.
bool shows(const std::string& example, const std::string& word) {
    if (std::count(example.begin(), example.end(), ' ') < 3) return false;
    std::string stem = lower(word);
    if (stem.size() > 3 && is_one_of(stem.back(), "ey")) stem.pop_back();
    const std::string text = lower(example);
    for (size_t at = text.find(stem); at != std::string::npos; at = text.find(stem, at + 1)) {
        if (at == 0 || !is_letter(text[at - 1])) return true;
    }
    return false;
}

// --- Questions and answers -------------------------------------------------------------------------------------------

/// Kinds of questions. Meaning is one kind per part of speech: Meaning + index.
enum Question : size_t { Meaning, Part = Meaning + parts_of_speech.size(), Synonyms, Example, Kind, Questions };

struct Sample {
    uint64_t order = 0;
    Question question = Question::Meaning;
    bool validation = false;
    std::string user, assistant;
};

class Writer {
  public:
    explicit Writer(const Synsets& nouns) : nouns_(nouns) {}

    void ask_about(const std::string& lemma, const Word& word, bool validation) {
        validation_ = validation;
        std::vector<std::string> parts;
        std::string name;
        for (size_t part = 0; part < parts_of_speech.size(); ++part) {
            if (word.senses[part].empty()) continue;
            const std::string spelled = spelling(lemma, *word.senses[part][0]);
            if (parts.empty()) name = spelled;
            parts.emplace_back(parts_of_speech[part].with_article);
            meaning(spelled, part, *word.senses[part][0]);
            synonyms(spelled, part, *word.senses[part][0]);
            example(spelled, part, word.senses[part]);
        }
        const std::string answer =
            fmt::format("{} {} {}", name, parts.size() > 1 ? "can be" : "is", listed(parts, " or "));
        add(Question::Part, fmt::format("What part of speech is {}?", name), answer);
        if (!word.senses[noun].empty()) kind(name, *word.senses[noun][0]);
    }
    /// Returns the samples in the order of their hashes.
    std::vector<Sample> take() {
        std::sort(samples_.begin(), samples_.end(), [](const Sample& a, const Sample& b) {
            return std::tie(a.order, a.user, a.assistant) < std::tie(b.order, b.user, b.assistant);
        });
        return std::move(samples_);
    }

  private:
    void add(size_t question, std::string user, std::string assistant) {
        const uint64_t order = hash_of(user);
        samples_.push_back({order, Question(question), validation_, std::move(user), sentence(std::move(assistant))});
    }
    void meaning(const std::string& word, size_t part, const Synset& synset) {
        const std::string& definition = synset.gloss.definition;
        if (!definition.empty())
            add(size_t{Question::Meaning} + part, meaning_question(word, part), meaning_answer(word, part, definition));
    }
    void synonyms(const std::string& word, size_t part, const Synset& synset) {
        std::vector<std::string> others;
        for (const std::string& other : synset.words) {
            if (lower(other) != lower(word) && speakable(other)) others.push_back(other);
        }
        if (others.empty()) return;
        add(Question::Synonyms, fmt::format("What is another word for the {} {}?", parts_of_speech[part].name, word),
            fmt::format("{} {} {}", others.size() > 1 ? "other words for" : "another word for", word,
                        (others.size() > 1 ? "are " : "is ") + listed(others, " and ")));
    }
    void example(const std::string& word, size_t part, const std::vector<const Synset*>& senses) {
        for (const Synset* sense : senses) {
            for (const std::string& text : sense->gloss.examples) {
                if (!shows(text, word)) continue;
                return add(Question::Example,
                           fmt::format("Use the {} {} in a sentence.", parts_of_speech[part].name, word), text);
            }
        }
    }
    void kind(const std::string& word, const Synset& synset) {
        const bool instance = synset.kinds.empty();
        std::vector<std::string> kinds;
        for (const int64_t offset : instance ? synset.instances : synset.kinds) {
            const auto found = nouns_.find(offset);
            if (found == nouns_.end())
                fail(Exit::data, "data.noun: '{}' points to offset {}, where no synset begins", word, offset);
            const std::string& name = found->second.words.at(0);
            if (speakable(name) && lower(name) != lower(word)) kinds.push_back(name);
        }
        if (kinds.empty()) return;
        const char* relation = instance ? "an instance of" : "a kind of";
        add(Question::Kind, fmt::format("What is {} {}?", word, relation),
            fmt::format("{} is {} {}", word, relation, listed(kinds, " and of ")));
    }

    const Synsets& nouns_;
    bool validation_ = false;
    std::vector<Sample> samples_;
};

struct Options {
    std::string wordnet = "/usr/share/wordnet", train, validation, text;
    double validation_share = 0.03;
    size_t limit = 0, shots = 0, shot_sets = 1;
};

std::vector<Sample> make_samples(const Options& options) {
    const WordNet wordnet(options.wordnet);
    Writer writer(wordnet.synsets[noun]);
    const std::vector<bool> validation = held_out(wordnet.words, options.validation_share);
    size_t index = 0;
    for (const auto& [lemma, word] : wordnet.words) writer.ask_about(lemma, word, validation[index++]);
    std::vector<Sample> samples = writer.take();
    if (options.limit > 0 && options.limit < samples.size()) samples.resize(options.limit);
    return samples;
}

Json message(const char* role, const std::string& content) {
    return {{"role", role}, {"content", content}};
}

/// The beginnings that few-shot prompts have: a system message and worked examples. Takes the first training samples
/// away for it.
std::vector<Json> take_beginnings(const Options& options, std::vector<Sample>& samples) {
    std::vector<Json> sets;
    std::vector<Sample> rest;
    size_t shots = 0;
    for (Sample& sample : samples) {
        if (sample.validation || shots == options.shots * options.shot_sets) {
            rest.push_back(std::move(sample));
            continue;
        }
        if (shots++ % options.shots == 0)
            sets.push_back(Json::array({message(
                "system", "You are a dictionary. Answer each question in one sentence, as in the examples.")}));
        sets.back().push_back(message("user", sample.user));
        sets.back().push_back(message("assistant", sample.assistant));
    }
    if (shots < options.shots * options.shot_sets)
        fail(Exit::config, "--shots {} --shot-sets {}: {} examples, but only {} samples for training", options.shots,
             options.shot_sets, options.shots * options.shot_sets, shots);
    samples = std::move(rest);
    return sets;
}

void print_counts(const std::vector<Sample>& samples) {
    std::array<std::array<int64_t, 2>, Question::Questions> counts{};
    std::array<int64_t, 2> total{};
    for (const Sample& sample : samples) {
        ++counts[sample.question][sample.validation];
        ++total[sample.validation];
    }
    const auto row = [](const std::string& name, const auto& count) {
        fmt::print("{:<24}{:>10}{:>12}\n", name, count[0], count[1]);
    };
    fmt::print("{:<24}{:>10}{:>12}\n", "question", "train", "validation");
    for (size_t part = 0; part < parts_of_speech.size(); ++part) {
        row(fmt::format("meaning of {}", parts_of_speech[part].with_article), counts[size_t{Question::Meaning} + part]);
    }
    row("part of speech", counts[Question::Part]);
    row("synonyms", counts[Question::Synonyms]);
    row("example sentence", counts[Question::Example]);
    row("kind of thing", counts[Question::Kind]);
    row("all", total);
}

/// `beginnings`: those of few-shot prompts, or none.
void write_samples(const Options& options, const std::vector<Sample>& samples, const std::vector<Json>& beginnings) {
    std::string train, validation, text;
    size_t number = 0;
    for (const Sample& sample : samples) {
        const Json question = message("user", sample.user), answer = message("assistant", sample.assistant);
        Json row = {{"messages", Json::array({question, answer})}};
        if (!beginnings.empty()) {
            row = {{"prompt", beginnings[number++ % beginnings.size()]}, {"completion", Json::array({answer})}};
            row["prompt"].push_back(question);
        }
        (sample.validation ? validation : train) += row.dump() + '\n';
        if (!sample.validation) text += sample.user + '\n' + sample.assistant + '\n';
    }
    write_file_atomically(options.train, train);
    write_file_atomically(options.validation, validation);
    if (!options.text.empty()) write_file_atomically(options.text, text);
}

int run(int argc, char** argv) {
    Options options;
    CLI::App app("Converts WordNet to chat JSONL: meanings, parts of speech, synonyms, examples, kinds of things");
    app.add_option("--wordnet", options.wordnet, "folder with the data.* and index.* files of WordNet 3.0")
        ->capture_default_str();
    app.add_option("--train", options.train, "output: JSONL for training")->required();
    app.add_option("--validation", options.validation, "output: JSONL for validation")->required();
    app.add_option("--text", options.text, "output: training sentences, one per line, to train a tokenizer on");
    app.add_option("--validation-share", options.validation_share, "fraction of the words held out for validation")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--limit", options.limit, "maximum number of samples in both files together; 0: all")
        ->capture_default_str();
    app.add_option("--shots", options.shots, "worked examples before each question; 0: none")
        ->capture_default_str()
        ->check(CLI::Range(0, 1000));
    app.add_option("--shot-sets", options.shot_sets, "number of sets of examples; each row has one of them")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000));
    return run_command("wordnet_chat", app, argc, argv, [&] {
        std::vector<Sample> samples = make_samples(options);
        const std::vector<Json> beginnings = options.shots ? take_beginnings(options, samples) : std::vector<Json>{};
        write_samples(options, samples, beginnings);
        print_counts(samples);
        return 0;
    });
}

}  // namespace
}  // namespace colonnade

int main(int argc, char** argv) {
    return colonnade::run(argc, argv);
}
