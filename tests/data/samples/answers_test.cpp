// Answers with a score, encoded: what is learned begins behind the generation prompt, ends where the sampler stopped, and
// is what fine-tuning learns of the same chat.

#include <gtest/gtest.h>

#include "tests/support/chat_templates.h"
#include "tests/support/chat_turns.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

std::shared_ptr<const Tokenizer> tokenizer() {
    static const auto made = small_tokenizer({.special = kFamilyMarkers});
    return made;
}

Encoder encoder(EncodeOptions options = {.excess_length = ExcessLength::truncate}) {
    options.chat_template = std::make_shared<const ChatTemplate>("own", kQwenLike, "", ChatTemplate::Settings{});
    return {tokenizer(), options};
}

/// The last `of_answer` messages are the answer.
Row scored(std::vector<Message> messages, size_t of_answer = 1) {
    Row row;
    row.prompt_messages = static_cast<int64_t>(messages.size() - of_answer);
    row.messages = std::move(messages);
    row.score.emplace();
    return row;
}
Row scored(const std::string& prompt, const std::string& completion) {
    Row row;
    row.prompt = prompt;
    row.completion = completion;
    row.score.emplace();
    return row;
}

struct Found {
    std::string text;  ///< what is learned in {{ }}
    RowNotes notes;
    Sample sample;
};
Found encoded(const Encoder& encoder, const Row& row) {
    TokenCache cache;
    const Encoded made = encoder.encode_answer(row, "here", cache);
    Found found{{}, made.notes, made.sample};
    if (made.notes.dropped()) return found;
    EXPECT_EQ(made.sample.sequences.size(), 1u);
    check_sample(made.sample);
    std::vector<float> weights(static_cast<size_t>(made.sample.length()));
    for (const auto& [begin, end, weight] : made.sample.sequences[0].learned)
        std::fill(weights.begin() + begin, weights.begin() + end, weight);
    found.text = shown(*tokenizer(), made.sample.whole(0), weights);
    return found;
}

const std::string kUser = "<|im_start|>user\n", kEnd = "<|im_end|>\n", kAsk = "<|im_start|>assistant\n";

TEST(Answers, WhatIsLearnedBeginsBehindTheGenerationPrompt) {
    // The template writes an empty think block, which generation has to write too.
    EXPECT_EQ(encoded(encoder(), scored({user("U"), answer("A")})).text,
              kUser + "U" + kEnd + kAsk + "{{<think>\n\n</think>\n\nA<|im_end|>}}\n");
    const Found thought = encoded(encoder(), scored({user("U"), answer("A"), user("V"), answer("B", "T")}));
    EXPECT_EQ(thought.text, kUser + "U" + kEnd + kAsk + "A" + kEnd + kUser + "V" + kEnd + kAsk +
                                "{{<think>\nT\n</think>\n\nB<|im_end|>}}\n");
    EXPECT_EQ(thought.notes, RowNotes());
    // A prompt of text is plain text.
    EXPECT_EQ(encoded(encoder(), scored("p", " a")).text, "p{{ a</s>}}");
}

TEST(Answers, EqualFineTuningOnTheSameChat) {
    // Of one turn, and of the turns of an agent, whose template keeps the thinking behind the last question.
    const Encoder same = encoder();
    const std::vector<Message> agent = {user("U"), answer("A", "T"), {"tool", "R", {}, {}}, answer("B", "S")};
    for (const Row& row : {scored({user("U"), answer("A", "T")}), scored(agent, 3)}) {
        Row chat = row;
        chat.score.reset();
        const Found found = encoded(same, row);
        const Sample tuned = same.encode(chat, "here").sample;
        ASSERT_EQ(tuned.sequences.size(), 1u);
        EXPECT_EQ(found.sample.whole(0), tuned.whole(0));
        EXPECT_EQ(found.notes, RowNotes());
    }
    const Found turns = encoded(same, scored(agent, 3));
    EXPECT_EQ(turns.sample.sequences[0].learned.size(), 2u) << "tools are not learned: " << turns.text;
    EXPECT_EQ(turns.text.find("{{R"), std::string::npos);
}

TEST(Answers, SeveralTurnsThatATemplateRewritesAreNoted) {
    const Found found = encoded(encoder(), scored({user("U"), answer("A", "T"), user("V"), answer("B", "S")}, 3));
    EXPECT_EQ(found.notes, RowNotes{RowNote::history_not_exact});
    EXPECT_EQ(found.text.find("T\n"), std::string::npos) << found.text;
}

TEST(Answers, NothingBehindTheSamplersStopIsLearned) {
    Row chat = scored({user("U"), answer("A", "T")}), text = scored("p", " a");
    chat.score->truncated = text.score->truncated = true;
    const Found found = encoded(encoder(), chat);
    EXPECT_EQ(found.text, kUser + "U" + kEnd + kAsk + "{{<think>\nT\n</think>\n\nA}}<|im_end|>\n");
    EXPECT_EQ(found.notes, RowNotes{RowNote::cut_off});
    EXPECT_EQ(encoded(encoder(), text).text, "p{{ a}}</s>");
    const Found masked = encoded(encoder({.mask_truncated = true}), chat);
    EXPECT_EQ(masked.text, kUser + "U" + kEnd + kAsk + "<think>\nT\n</think>\n\nA<|im_end|>\n");
    EXPECT_EQ(masked.notes, (RowNotes{RowNote::cut_off, RowNote::answer_not_learned}));
}

TEST(Answers, LongOnesAreCutAtTheirEnd) {
    const Row row = scored({user("U"), answer("one two three four five", "T")});
    const Found whole = encoded(encoder(), row);
    const int64_t length = whole.sample.length(), prompt = whole.sample.sequences[0].learned[0].begin;
    const Found cut = encoded(encoder({.max_length = length - 3, .excess_length = ExcessLength::truncate}), row);
    EXPECT_EQ(cut.notes, (RowNotes{RowNote::truncated, RowNote::cut_off}));
    EXPECT_EQ(cut.sample.length(), length - 3);
    EXPECT_EQ(cut.sample.sequences[0].learned[0],
              (LearnedSpan{static_cast<int32_t>(prompt), static_cast<int32_t>(length - 3), 1}));
    EXPECT_EQ(encoded(encoder({.max_length = prompt, .excess_length = ExcessLength::truncate}), row).notes,
              RowNotes{RowNote::dropped_too_long});
    EXPECT_EQ(encoded(encoder({.max_length = length - 3}), row).notes, RowNotes{RowNote::dropped_too_long});
}

}  // namespace
}  // namespace colonnade
