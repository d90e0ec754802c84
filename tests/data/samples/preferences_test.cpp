// From answers to samples: each sequence has the tokens and targets of that prompt and answer encoded alone; useless
// preferences are dropped with a note.

#include <gtest/gtest.h>

#include <algorithm>

#include "data/packing/batch.h"
#include "data/samples/join_branches.h"
#include "engine/device/philox.h"
#include "tests/support/expect_error.h"
#include "tests/support/flat_sample.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

/// A tiny BPE model with the markers of ChatML, Llama-3 and Gemma.
std::shared_ptr<const Tokenizer> tokenizer() {
    static const auto loaded = Tokenizer::load(golden_file("template_golden.model"));
    return loaded;
}

Row plain(std::optional<std::string> prompt, const std::string& completion) {
    Row row;
    row.prompt = std::move(prompt);
    row.completion = completion;
    return row;
}

Row chat(std::vector<Message> messages, int64_t prompt_messages) {
    Row row;
    row.messages = std::move(messages);
    row.prompt_messages = prompt_messages;
    return row;
}

Row ids(std::vector<int32_t> tokens, std::vector<int32_t> labels) {
    Row row;
    row.input_ids = std::move(tokens);
    row.labels = std::move(labels);
    return row;
}

Row preference(std::vector<Row> answers, bool whole = false, float margin = 0) {
    Row row;
    row.answers = std::move(answers);
    row.whole_answers = whole;
    row.margin = margin;
    return row;
}

/// A target as its sequence sees it: the tokens that it follows, and itself.
using Targets = std::vector<std::pair<std::vector<int32_t>, int32_t>>;

/// The targets of every sequence of a batch, each with the tokens that its row sees in the dense mask.
std::vector<Targets> targets_of(const Batch& batch) {
    const std::vector<uint8_t> dense = batch.mask.dense();
    std::vector<Targets> targets(batch.sequences.size());
    for (size_t s = 0; s < targets.size(); ++s) {
        for (int32_t term = batch.term_begins[s]; term < batch.term_begins[s + 1]; ++term) {
            const auto i = static_cast<size_t>(batch.term_targets[static_cast<size_t>(term)]);
            const auto row = static_cast<size_t>(batch.rows[i]), length = static_cast<size_t>(batch.length);
            std::vector<int32_t> context;
            for (size_t j = 0; j < length; ++j)
                if (dense[row * length + j]) context.push_back(batch.tokens[row / length * length + j]);
            EXPECT_EQ(batch.positions[row] + 1, static_cast<int32_t>(context.size()));
            targets[s].emplace_back(context, batch.targets[i]);
        }
    }
    return targets;
}

/// Compares the sequences with each answer encoded as a row of its own.
void expect_answers_alone(const Encoder& encoder, const Row& row, const std::string& what) {
    const Encoded joined = encoder.encode(row, "here");
    ASSERT_FALSE(joined.notes.dropped() || joined.notes.has(RowNote::truncated)) << what;
    const Sample& sample = joined.sample;
    ASSERT_EQ(sample.sequences.size(), row.answers.size());
    for (const Sequence& sequence : sample.sequences) EXPECT_GE(sequence.learned.at(0).begin, sample.common());
    std::vector<Targets> alone;
    int64_t longest = 0;
    for (size_t b = 0; b < row.answers.size(); ++b) {
        const Encoded whole = encoder.encode(row.answers[b], "here");
        EXPECT_EQ(sample.whole(b), whole.sample.whole(0)) << what << ", answer " << b;
        longest = std::max(longest, whole.full_length);
        Batch batch = make_batch({{&whole.sample}});
        alone.push_back(targets_of(batch).at(0));
    }
    EXPECT_EQ(joined.full_length, longest);
    // Packed after another sample, each sequence still has its own targets in its own context.
    const Sample before = sample_of({{7, 8, 9}, {0, 1, 1}});
    std::vector<Targets> packed = targets_of(make_batch({{&before, &sample}}));
    packed.erase(packed.begin());
    if (!row.whole_answers) {
        EXPECT_EQ(packed, alone) << what;
        return;
    }
    // The common beginning of whole texts is not trained on.
    for (size_t b = 0; b < alone.size(); ++b) {
        ASSERT_GE(alone[b].size(), packed[b].size());
        EXPECT_TRUE(std::equal(packed[b].rbegin(), packed[b].rend(), alone[b].rbegin())) << what;
        for (size_t i = 0; i + packed[b].size() < alone[b].size(); ++i)
            EXPECT_LE(alone[b][i].first.size(), static_cast<size_t>(sample.common()));
    }
}

const std::vector<Message> kPrompt = {
    {"system", "S", {}}, {"user", "U", {}}, {"assistant", "A", {}}, {"user", "V", {}}};

std::vector<Message> with_answer(const std::string& answer, std::vector<Message> messages = kPrompt) {
    messages.push_back({"assistant", answer, {}});
    return messages;
}

TEST(Preferences, EverySequenceIsItsAnswerAlone) {
    for (const std::string& name : chat_template_names()) {
        EncodeOptions options;
        options.chat_template = ChatTemplate::built_in(name);
        const Encoder encoder(tokenizer(), options);
        // Answers with a common beginning, an answer that is the beginning of another, answers of several turns.
        const std::vector<std::string> answers = {"The house is old", "The house is new", "The", "no"};
        std::vector<Row> rows;
        for (const std::string& answer : answers) rows.push_back(chat(with_answer(answer), 4));
        expect_answers_alone(encoder, preference({rows[0], rows[1]}), name);
        expect_answers_alone(encoder, preference({rows[2], rows[0]}), name);
        expect_answers_alone(encoder, preference(rows), name + ", a ranking");
        std::vector<Message> longer = with_answer("The house");
        longer.push_back({"user", "W", {}});
        expect_answers_alone(encoder, preference({chat(with_answer("The end", longer), 4), rows[3]}), name + ", turns");
        // A prompt message with "train": true ends the stem and changes nothing else.
        std::vector<Message> switched = kPrompt;
        switched[2].weight = 1;
        expect_answers_alone(encoder,
                             preference({chat(with_answer("x", switched), 4), chat(with_answer("y", switched), 4)}),
                             name + ", train");
    }
    const Encoder encoder(tokenizer(), {});
    expect_answers_alone(encoder, preference({plain("one", " two three"), plain("one", " two four")}), "strings");
    expect_answers_alone(encoder, preference({plain("", "two"), plain("", "four")}), "no prompt");
    expect_answers_alone(encoder, preference({plain({}, "one two three"), plain({}, "one two four")}, true), "wholes");
    expect_answers_alone(encoder, preference({plain({}, "one two"), plain({}, "one two four")}, true), "a prefix");
    EncodeOptions bare;
    bare.add_bos = false;
    expect_answers_alone(Encoder(tokenizer(), bare), preference({plain("", "two"), plain("", "four")}), "no stem");
    const Encoder tokens(nullptr, {.vocab_size = 100});
    expect_answers_alone(
        tokens, preference({ids({1, 2, 3, 4}, {-100, -100, 3, 4}), ids({1, 2, 3, 5}, {-100, -100, 3, 5})}), "tokens");
    expect_answers_alone(tokens, preference({ids({1, 2, 3, 4}, {1, 2, 3, 4}), ids({1, 2, 5}, {1, 2, 5})}, true), "ids");
}

/// The stem of whole texts ends with a whole token, even if the texts agree for further letters.
TEST(Preferences, WholeTextsPartAtATokenNotAtALetter) {
    const Encoder encoder(tokenizer(), {});
    int merged = 0;
    const std::string words[] = {"assistant", "assist", "system", "syntax", "user", "use", "model", "mode", "house",
                                 "hour",      "the",    "them",   "there",  "one",  "on",  "old",   "older"};
    for (const std::string& a : words) {
        for (const std::string& b : words) {
            if (a == b) continue;
            const std::string chosen = "say " + a, rejected = "say " + b;
            const Row row = preference({plain({}, chosen), plain({}, rejected)}, true);
            expect_answers_alone(encoder, row, chosen + " / " + rejected);
            const Sample sample = encoder.encode(row, "here").sample;
            std::vector<int32_t> stem = sample.whole(0);
            stem.resize(static_cast<size_t>(sample.common()));
            const size_t letters = static_cast<size_t>(
                std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end()).first - chosen.begin());
            const std::string shared = tokenizer()->decode(stem);
            EXPECT_LE(shared.size(), letters);
            merged += shared.size() < letters;
        }
    }
    EXPECT_GT(merged, 10);
}

/// The stem is as long as it can be: the next token differs, or is trained on in one of the drafts.
TEST(Preferences, TheStemIsTheLongestCommonUntrainedPrefix) {
    const Philox random{21, 1};
    uint64_t at = 0;
    const auto draw = [&](uint64_t n) { return random.below(at++, n); };
    int kept = 0, same = 0, untrained = 0;
    for (int trial = 0; trial < 3000; ++trial) {
        std::vector<TokenDraft> drafts(2 + draw(3));
        for (TokenDraft& draft : drafts) {
            const uint64_t length = 1 + draw(8), trained_from = draw(8);
            for (uint64_t i = 0; i < length; ++i) {
                draft.tokens.push_back(draw(4) == 0 ? 1 : 0);
                draft.weights.push_back(i >= trained_from ? 1 : 0);
            }
        }
        const Encoded result = join_branches(drafts, false, {.max_length = 100}, "here");
        same += result.notes.has(RowNote::dropped_same_answers);
        untrained += result.notes.has(RowNote::dropped_nothing_learned);
        if (result.notes.dropped()) continue;
        ++kept;
        const Sample& sample = result.sample;
        const auto stem = static_cast<size_t>(sample.common());
        bool may_grow = true;
        for (size_t b = 0; b < drafts.size(); ++b) {
            ASSERT_EQ(sample.sequences[b].shared, b > 0 ? stem : 0);
            ASSERT_EQ(sample.whole(b), drafts[b].tokens);
            std::vector<float> weights = drafts[b].weights;
            weights[0] = 0;
            ASSERT_EQ(weights_of(sample.sequences[b]), weights);
            may_grow = may_grow && stem < drafts[b].tokens.size() &&
                       drafts[b].tokens[stem] == drafts[0].tokens[std::min(stem, drafts[0].tokens.size() - 1)] &&
                       (stem == 0 || drafts[b].weights[stem] == 0);
        }
        ASSERT_FALSE(may_grow);
    }
    EXPECT_GT(kept, 500);
    EXPECT_GT(same, 10);
    EXPECT_GT(untrained, 100);
}

struct Length {
    const char* what;
    std::vector<std::string> wholes;  ///< one letter per token; upper case: trained on
    int64_t max_length, sample_length;
    ExcessLength policy;
    RowNotes notes;
    std::string expected;  ///< stem|answer|answer
};

TEST(Preferences, LengthsAreKeptByOneRule) {
    using enum ExcessLength;
    const Length cases[] = {
        {"all fits", {"ppABC", "ppDE"}, 5, 7, drop, {}, "pp|ABC|DE"},
        {"all fits, error", {"ppABC", "ppDE"}, 5, 7, error, {}, "pp|ABC|DE"},
        {"an answer is too long", {"ppABC", "ppDE"}, 4, 7, drop, {RowNote::dropped_too_long}, ""},
        {"no room for both", {"ppABC", "ppDE"}, 5, 6, drop, {RowNote::dropped_no_room}, ""},
        {"any room", {"ppABC", "ppDE"}, 5, 0, drop, {}, "pp|ABC|DE"},
        {"cut to max_length", {"ppABC", "ppDE"}, 4, 0, truncate, {RowNote::truncated}, "pp|AB|DE"},
        {"cut to the room", {"ppABCD", "ppEF"}, 6, 7, truncate, {RowNote::truncated}, "pp|ABC|EF"},
        {"both cut to one length", {"ppABCD", "ppEFG"}, 6, 6, truncate, {RowNote::truncated}, "pp|AB|EF"},
        {"an odd token is left over", {"ppABCD", "ppEFG"}, 6, 7, truncate, {RowNote::truncated}, "pp|AB|EF"},
        {"three answers", {"pABCD", "pE", "pFGHI"}, 5, 8, truncate, {RowNote::truncated}, "p|ABC|E|FGH"},
        {"the prompt takes all", {"ppABC", "ppDE"}, 2, 0, truncate, {RowNote::dropped_no_room}, ""},
        {"one answer has no room", {"ppxxA", "ppB"}, 4, 0, truncate, {RowNote::dropped_no_room}, ""},
        {"the difference is cut", {"pABC", "pABD"}, 3, 0, truncate, {RowNote::dropped_difference_cut}, ""},
        {"the difference fits", {"pABC", "pABD"}, 4, 7, truncate, {}, "p|ABC|ABD"},
        {"the prompt differs", {"pqA", "prB"}, 4, 0, drop, {}, "p|qA|rB"},
        {"the same", {"pAB", "pAB"}, 9, 0, drop, {RowNote::dropped_same_answers}, ""},
        {"two of three the same", {"pAB", "pC", "pAB"}, 9, 0, drop, {RowNote::dropped_same_answers}, ""},
        {"the same and too long", {"pAB", "pAB"}, 2, 0, error, {RowNote::dropped_same_answers}, ""},
        {"no trained token in one", {"pA", "pb"}, 9, 0, drop, {RowNote::dropped_nothing_learned}, ""},
        {"only a first token", {"A", "B"}, 9, 0, drop, {RowNote::dropped_nothing_learned}, ""},
        {"no stem", {"AB", "CD"}, 9, 0, drop, {}, "|aB|cD"},
    };
    for (const Length& c : cases) {
        std::vector<TokenDraft> drafts;
        for (const std::string& letters : c.wholes) {
            TokenDraft& draft = drafts.emplace_back();
            for (const char letter : letters) {
                draft.tokens.push_back(letter | 0x20);
                draft.weights.push_back(letter < 'a' ? 1 : 0);
            }
        }
        const EncodeOptions options{
            .max_length = c.max_length, .excess_length = c.policy, .sample_length = c.sample_length};
        const Encoded result = join_branches(drafts, false, options, "here");
        EXPECT_TRUE(result.notes == c.notes) << c.what;
        std::string text;
        const FlatSample found = flat(result.sample);
        for (size_t i = 0; i < found.tokens.size(); ++i) {
            text.append(static_cast<size_t>(std::ranges::count(found.begins, static_cast<int32_t>(i))), '|');
            text += static_cast<char>(found.weights[i] > 0 ? found.tokens[i] & ~0x20 : found.tokens[i]);
        }
        EXPECT_EQ(text, c.expected) << c.what;
        const auto longest = std::ranges::max(c.wholes, {}, &std::string::size).size();
        EXPECT_EQ(result.full_length, static_cast<int64_t>(longest)) << c.what;
    }
    const std::vector<TokenDraft> drafts = {{{1, 2, 3}, {0, 1, 1}}, {{1, 4}, {0, 1}}};
    const auto strict = [&](int64_t max_length, int64_t sample_length) {
        (void)join_branches(drafts, false,
                            {.max_length = max_length, .excess_length = error, .sample_length = sample_length}, "f:7");
    };
    expect_error(Exit::data, "f:7: a prompt and its answer have 3 tokens; expected at most max_length 2",
                 [&] { strict(2, 9); });
    expect_error(Exit::data, "f:7: the prompt and its 2 answers have 4 tokens; expected at most packing_length 3",
                 [&] { strict(3, 3); });
}

TEST(Preferences, SuspiciousRowsAreKeptAndNoted) {
    const Encoder chatml(tokenizer(), {});
    const std::vector<Message> prompt = {{"user", "U", {}}};
    const auto pair = [&](const std::string& chosen, const std::string& rejected) {
        return chatml.encode(
            preference({chat(with_answer(chosen, prompt), 1), chat(with_answer(rejected, prompt), 1)}, false, 0.5f),
            "here");
    };
    const Encoded sound = pair("yes", "no");
    EXPECT_FALSE(sound.notes.any());
    EXPECT_EQ(flat(sound.sample).margin, 0.5f);
    for (const char* blank : {"", " ", "\n", " \n\t "}) {
        EXPECT_TRUE(pair("yes", blank).notes.has(RowNote::empty_answer)) << '"' << blank << '"';
        EXPECT_TRUE(pair(blank, "no").notes.has(RowNote::empty_answer));
        EXPECT_FALSE(pair(blank, "no").notes.dropped());
    }
    EXPECT_FALSE(pair("yes", " x ").notes.has(RowNote::empty_answer));
    EXPECT_TRUE(pair("yes", "n<|im_end|>o").notes.has(RowNote::marker_in_text));

    EXPECT_TRUE(chatml.encode(preference({plain("", "a b"), plain("", "c d")}), "here").notes.has(RowNote::no_prompt));
    EXPECT_TRUE(
        chatml.encode(preference({plain({}, "a b"), plain({}, "c d")}, true), "here").notes.has(RowNote::no_prompt));
    EXPECT_FALSE(
        chatml.encode(preference({plain({}, "a b"), plain({}, "a d")}, true), "here").notes.has(RowNote::no_prompt));
    EXPECT_TRUE(chatml
                    .encode(preference({chat({{"user", "x", {}}, {"assistant", "a", {}}}, 0),
                                        chat({{"user", "y", {}}, {"assistant", "b", {}}}, 0)}),
                            "here")
                    .notes.has(RowNote::no_prompt));
    const Encoder no_end(tokenizer(), {.add_eos = false});
    EXPECT_TRUE(no_end.encode(preference({plain("p", "a"), plain("p", "b")}), "here").notes.has(RowNote::no_end_token));

    const std::vector<Row> three = {plain("p", "a"), plain("p", "b"), plain("p", "c")};
    const Sample ranking = chatml.encode(preference(three, false, 0.5f), "here").sample;
    EXPECT_EQ(ranking.sequences.size(), 3u);
    EXPECT_EQ(ranking.pairs, (std::vector<AnswerPair>{{0, 1, 0.5f}, {0, 2, 0.5f}, {1, 2, 0.5f}}));
    const Encoder best(tokenizer(), {.ranked_pairs = RankedPairs::best});
    EXPECT_EQ(best.encode(preference(three), "here").sample.pairs, (std::vector<AnswerPair>{{0, 1}, {0, 2}}));
    Row own = preference(three);
    own.weight = 2;
    own.pairs = {{2, 0, 0.5f, 0.25f}, {0, 1, 0, 0}, {1, 2}};
    const Encoded weighted = chatml.encode(own, "here");
    EXPECT_EQ(weighted.sample.pairs, (std::vector<AnswerPair>{{2, 0, 0.5f, 0.5f}, {1, 2, 0, 2}}));
    EXPECT_TRUE(weighted.notes.has(RowNote::weighted));
    EXPECT_FALSE(chatml.encode(preference(three), "here").notes.has(RowNote::weighted));
    own.weight = 0;
    EXPECT_TRUE(chatml.encode(own, "here").notes.has(RowNote::dropped_nothing_learned));
    own.pairs.clear();
    EXPECT_TRUE(chatml.encode(own, "here").notes.has(RowNote::dropped_nothing_learned));
    expect_error(Exit::data, "f:3: input_ids[1] is 100; expected 0 to 99", [] {
        (void)Encoder(nullptr, {.vocab_size = 100})
            .encode(preference({ids({1, 100}, {1, 100}), ids({1, 2}, {1, 2})}), "f:3");
    });
}

}  // namespace
}  // namespace colonnade
