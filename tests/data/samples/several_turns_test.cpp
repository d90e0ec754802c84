// Preferences of several turns and of steps: each answer has the tokens and targets of a pair row of its own, and what
// answers share is there once.

#include <algorithm>

#include "data/rows/rows.h"
#include "data/samples/encode.h"
#include "tests/support/chat_templates.h"
#include "tests/support/file_test.h"
#include "tests/support/flat_sample.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

std::shared_ptr<const Tokenizer> tokenizer() {
    static const auto made = small_tokenizer({.special = kFamilyMarkers});
    return made;
}

/// A sequence with its weights.
using Answer = std::pair<std::vector<int32_t>, std::vector<float>>;

Answer answer_of(const Sample& sample, size_t number) {
    return {sample.whole(number), weights_of(sample.sequences[number])};
}

class SeveralTurns : public FileTest {
  protected:
    std::vector<Encoded> encode(const std::string& rows, EncodeOptions options = {}) const {
        spill(path("rows.jsonl"), rows);
        RowReader reader({.path = path("rows.jsonl")}, RowKind::preferences);
        if (!options.chat_template) options.chat_template = own(kQwenLike);
        const Encoder encoder(tokenizer(), options);
        std::vector<Encoded> all;
        for (Row row; reader.next(row);) all.push_back(encoder.encode(row, "here"));
        return all;
    }
    static std::shared_ptr<const ChatTemplate> own(const std::string& source) {
        return std::make_shared<const ChatTemplate>("own", source, "", ChatTemplate::Settings{});
    }
    static std::string text_of(const Answer& answer) {
        std::string text;
        for (size_t i = 0; i < answer.first.size(); ++i)
            if (answer.second[i] > 0) text += tokenizer()->piece(answer.first[i]);
        return text;
    }
};

const std::string kTurns =
    R"({"messages": [{"role": "user", "content": "one plus one"}, )"
    R"({"role": "assistant", "content": "<think>\nadd\n</think>\n\ntwo", "rejected": "three"}, )"
    R"({"role": "user", "content": "and one more"}, {"role": "assistant", "content": "three"}, )"
    R"({"role": "user", "content": "twice that"}, )"
    R"({"role": "assistant", "content": "six", "rejected": ["five", {"role": "assistant", "content": "seven", "reasoning_content": "oops"}]}]})";

/// The same as one row of chosen and rejected for each pair.
std::vector<std::string> flat_rows() {
    const std::string
        one = R"({"role": "user", "content": "one plus one"})",
        two = R"({"role": "assistant", "content": "<think>\nadd\n</think>\n\ntwo"})",
        later = one + ", " + two +
                R"(, {"role": "user", "content": "and one more"}, {"role": "assistant", "content": "three"}, )"
                R"({"role": "user", "content": "twice that"})";
    const auto row = [](const std::string& messages, const std::string& chosen, const std::string& rejected) {
        return fmt::format(R"({{"messages": [{}], "chosen": {}, "rejected": {}}})", messages, chosen, rejected);
    };
    return {row(one, two, R"({"role": "assistant", "content": "three"})"), row(later, R"("six")", R"("five")"),
            row(later, R"({"role": "assistant", "content": "six"})",
                R"({"role": "assistant", "content": "seven", "reasoning_content": "oops"})")};
}

TEST_F(SeveralTurns, EachPairIsARowOfItsOwn) {
    const std::string thought = R"(, "reasoning_content": "oops")";
    const auto without = [&](std::string row) {
        return row.find(thought) == row.npos ? row : row.erase(row.find(thought), thought.size());
    };
    for (const std::string& source : {kQwenLike, kLlamaLike}) {
        const bool thinks = source == kQwenLike;  // the other template has no place for it
        const Encoded turns = encode(thinks ? kTurns : without(kTurns), {.chat_template = own(source)}).at(0);
        ASSERT_EQ(turns.sample.pairs.size(), 3u);
        check_sample(turns.sample);
        int64_t longest = 0, flat_tokens = 0;
        for (size_t p = 0; p < 3; ++p) {
            const std::string row = flat_rows()[p];
            const Encoded flat = encode(thinks ? row : without(row), {.chat_template = own(source)}).at(0);
            const AnswerPair pair = turns.sample.pairs[p];
            EXPECT_EQ(answer_of(turns.sample, static_cast<size_t>(pair.better)), answer_of(flat.sample, 0)) << p;
            EXPECT_EQ(answer_of(turns.sample, static_cast<size_t>(pair.worse)), answer_of(flat.sample, 1)) << p;
            EXPECT_EQ(pair.weight, 1);
            flat_tokens += flat.sample.length();
            longest = std::max(longest, flat.full_length);
        }
        EXPECT_EQ(turns.full_length, longest);
        EXPECT_LT(turns.sample.length(), flat_tokens);
        if (thinks) continue;
        // This template keeps the past: the walk is the last chosen path, and the rejected answers beside it.
        std::vector<Sequence> s = turns.sample.sequences;
        ASSERT_EQ(s.size(), 5u);
        const std::vector<int32_t> last = turns.sample.whole(4);
        int64_t beside = 0;
        for (const size_t rejected : {0u, 2u, 3u}) {
            const std::vector<int32_t> whole = turns.sample.whole(rejected);
            const auto begin = std::ranges::mismatch(whole, last).in1;
            beside += whole.end() - begin;
        }
        EXPECT_EQ(turns.sample.whole(1), std::vector<int32_t>(last.begin(), last.begin() + s[1].length()));
        // The two rejected answers of the last turn may begin alike.
        EXPECT_LE(turns.sample.length(), std::ssize(last) + beside);
        EXPECT_GE(turns.sample.length(), std::ssize(last) + beside - 2);
    }
}

TEST_F(SeveralTurns, ShareGptAndASystemPrompt) {
    const std::string openai =
        R"({"system": "s", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "rejected": "b"}], "weight": 2, "margin": 1})";
    const std::string sharegpt =
        R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "rejected": {"from": "gpt", "value": "b"}}], "weight": 2, "margin": 1})";
    const Sample a = encode(openai).at(0).sample, b = encode(sharegpt).at(0).sample;
    EXPECT_EQ(a, b);
    EXPECT_EQ(a.pairs, (std::vector<AnswerPair>{{1, 0, 1, 2}}));
    EXPECT_NE(text_of(answer_of(a, 1)), text_of(answer_of(a, 0)));
}

TEST_F(SeveralTurns, APairThatCannotBeLearnedIsLeftOut) {
    const auto chat = [](const std::string& first, const std::string& second) {
        return fmt::format(
            R"({{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "a", {}}}, )"
            R"({{"role": "user", "content": "r"}}, {{"role": "assistant", "content": "c", {}}}]}})",
            first, second);
    };
    const auto one = [&](const std::string& row, EncodeOptions options = {}) { return encode(row, options).at(0); };
    const Encoded same = one(chat(R"("rejected": "a")", R"("rejected": "d")"));
    EXPECT_EQ(same.sample.pairs.size(), 1u);
    EXPECT_EQ(same.sample.sequences.size(), 2u);
    EXPECT_TRUE(same.notes.has(RowNote::answers_left_out) && !same.notes.dropped());
    EXPECT_TRUE(one(chat(R"("rejected": "a")", R"("rejected": "c")")).notes.has(RowNote::dropped_same_answers));
    EXPECT_TRUE(
        one(chat(R"("rejected": "b", "weight": 0)", R"("rejected": [])")).notes.has(RowNote::dropped_nothing_learned));
    const Encoded weighted = one(chat(R"("rejected": "b", "weight": 0.5)", R"("rejected": "d", "train": true)"));
    EXPECT_EQ(weighted.sample.pairs, (std::vector<AnswerPair>{{1, 0, 0, 0.5f}, {3, 2}}));
    EXPECT_TRUE(weighted.notes.has(RowNote::weighted));
    EXPECT_EQ(weights_of(weighted.sample.sequences[1]),
              weights_of(one(chat(R"("rejected": "b")", R"("rejected": "d")")).sample.sequences[1]));
}

TEST_F(SeveralTurns, LengthsAreThoseOfTurns) {
    const Encoded whole = encode(kTurns).at(0);
    const int64_t first = whole.sample.sequences[1].length(), last = whole.sample.sequences[4].length();
    ASSERT_LT(first, last);
    const Encoded shorter = encode(kTurns, {.max_length = last - 1}).at(0);
    EXPECT_EQ(shorter.sample.pairs.size(), 1u);
    EXPECT_TRUE(shorter.notes.has(RowNote::answers_left_out));
    EXPECT_EQ(shorter.full_length, whole.full_length);
    EXPECT_TRUE(encode(kTurns, {.max_length = 4}).at(0).notes.has(RowNote::dropped_too_long));
    expect_error(Exit::data, "here: an answer has ",
                 [&] { encode(kTurns, {.max_length = 4, .excess_length = ExcessLength::error}); });
    EXPECT_TRUE(encode(kTurns, {.max_length = 4, .excess_length = ExcessLength::truncate})
                    .at(0)
                    .notes.has(RowNote::dropped_no_room));

    // A tree that is too long becomes a sample for each turn.
    const Encoded divided = encode(kTurns, {.sample_length = whole.sample.length() - 1}).at(0);
    ASSERT_EQ(divided.more.size(), 1u);
    EXPECT_EQ(divided.sample.pairs, (std::vector<AnswerPair>{{1, 0}}));
    EXPECT_EQ(divided.more[0].pairs, (std::vector<AnswerPair>{{2, 0}, {2, 1}}));
    for (const size_t s : {0u, 1u}) EXPECT_EQ(answer_of(divided.sample, s), answer_of(whole.sample, s));
    for (const size_t s : {0u, 1u, 2u}) EXPECT_EQ(answer_of(divided.more[0], s), answer_of(whole.sample, s + 2));
    EXPECT_FALSE(divided.notes.has(RowNote::answers_left_out));
    const Encoded no_room = encode(kTurns, {.sample_length = divided.more[0].length() - 1}).at(0);
    EXPECT_EQ(no_room.sample, divided.sample);
    EXPECT_TRUE(no_room.notes.has(RowNote::answers_left_out));
    expect_error(Exit::data, "expected at most packing_length", [&] {
        encode(kTurns, {.excess_length = ExcessLength::error, .sample_length = divided.more[0].length() - 1});
    });
}

TEST_F(SeveralTurns, BadRowsAreRefused) {
    const auto chat = [](const std::string& message) {
        return R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "rejected": "b"}, )" +
               message + "]}";
    };
    const std::pair<std::string, const char*> cases[] = {
        {R"({"role": "user", "content": "q", "rejected": "b"})",
         "rows.jsonl:1: messages[2]: key 'rejected' of a message from role 'user'; expected it in messages of the "
         "assistant alone"},
        {R"({"role": "assistant", "content": "q", "rejected": [3]})",
         "rows.jsonl:1: messages[2]: rejected[0]: expected a string or a message, found number"},
        {R"({"role": "assistant", "content": "q", "rejected": {"role": "user", "content": "b"}})",
         "rows.jsonl:1: messages[2]: rejected: found a message from role 'user', expected one of the assistant"},
    };
    for (const auto& [message, part] : cases)
        expect_error(Exit::data, part, [&, &message = message] { encode(chat(message)); });
    std::string many = R"({"messages": [{"role": "user", "content": "q"})";
    for (int i = 0; i < 1000; ++i) many += R"(, {"role": "assistant", "content": "a", "rejected": "b"})";
    expect_error(Exit::data, "each with the messages before it, have more than 128 MiB; expected fewer",
                 [&] { encode(many + "]}"); });
}

/// Whole conversations that part early: every answer behind that is learned, and nothing that users and tools say.
TEST_F(SeveralTurns, TrajectoriesLearnTheirAnswersAlone) {
    const std::string row =
        R"({"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "alpha"}, )"
        R"({"role": "tool", "content": "result"}, {"role": "assistant", "content": "beta"}, )"
        R"({"role": "user", "content": "more"}, {"role": "assistant", "content": "gamma"}], )"
        R"("rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "alpha"}, )"
        R"({"role": "tool", "content": "result"}, {"role": "assistant", "content": "delta"}, )"
        R"({"role": "user", "content": "why"}, {"role": "assistant", "content": "epsilon"}]})";
    const std::string chatml = R"({% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %})";
    const Sample sample = encode(row, {.chat_template = own(chatml)}).at(0).sample;
    ASSERT_EQ(sample.sequences.size(), 2u);
    EXPECT_EQ(text_of(answer_of(sample, 0)), "beta<|im_end|>gamma<|im_end|>");
    EXPECT_EQ(text_of(answer_of(sample, 1)), "delta<|im_end|>epsilon<|im_end|>");
    EXPECT_EQ(sample.pairs, (std::vector<AnswerPair>{{0, 1}}));
    // The prompt has its own key, and answers are lists of messages.
    const std::string with_prompt =
        R"({"prompt": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "alpha"}, {"role": "tool", "content": "result"}], )"
        R"("chosen": [{"role": "assistant", "content": "beta"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "gamma"}], )"
        R"("rejected": [{"role": "assistant", "content": "delta"}, {"role": "user", "content": "why"}, {"role": "assistant", "content": "epsilon"}]})";
    EXPECT_EQ(encode(with_prompt, {.chat_template = own(chatml)}).at(0).sample, sample);
}

std::string step(const std::string& given, const std::string& chosen, const std::string& rejected,
                 const std::string& more = "") {
    return fmt::format(R"({{"prompt": "Q", "initial_reason_steps": "{}", "chosen": "{}", "rejected": "{}"{}}})", given,
                       chosen, rejected, more);
}

TEST_F(SeveralTurns, AStepIsLearnedBehindTheStepsBeforeIt) {
    const std::string given = R"(Step 1: add.\nStep 2:)";
    for (const std::string& source : {kQwenLike, kLlamaLike}) {
        const Sample sample = encode(step(given, " four.", " five.", R"(, "full_chosen": "x", "answer": "4")"),
                                     {.chat_template = own(source)})
                                  .at(0)
                                  .sample;
        EXPECT_EQ(text_of(answer_of(sample, 0)), "\u0120four.");
        EXPECT_EQ(text_of(answer_of(sample, 1)), "\u0120five.");
        EXPECT_EQ(sample.pairs, (std::vector<AnswerPair>{{0, 1}}));
        // What stands before: the generation prompt, what the template writes behind it, and the given steps.
        std::vector<int32_t> chosen = sample.whole(0);
        const int32_t begin = sample.sequences[0].learned.at(0).begin;
        EXPECT_EQ(sample.sequences[0].learned.at(0).end, std::ssize(chosen)) << "no end token follows";
        std::string before;
        for (int32_t i = 0; i < begin; ++i) before += tokenizer()->piece(chosen[static_cast<size_t>(i)]);
        EXPECT_TRUE(before.ends_with("Step\u01202:")) << before;
        // Steps of one solution continue each other.
        const Sample next =
            encode(step(given + " four.", " Done.", " Wait."), {.chat_template = own(source)}).at(0).sample;
        const std::vector<int32_t> later = next.whole(0);
        EXPECT_TRUE(std::equal(chosen.begin(), chosen.begin() + begin, later.begin()));
        // The first step has none before it.
        const Sample first = encode(step("", "Step 1", "Step 2"), {.chat_template = own(source)}).at(0).sample;
        EXPECT_EQ(text_of(answer_of(first, 0)), "Step\u01201");
    }
    // Words of the template are not taken for the answer; an empty step teaches nothing.
    const Sample short_one = encode(step("a", "s", "t"), {.chat_template = own(kLlamaLike)}).at(0).sample;
    EXPECT_EQ(text_of(answer_of(short_one, 0)), "s");
    EXPECT_TRUE(encode(step(" ", "", "t"), {.chat_template = own(kLlamaLike)})
                    .at(0)
                    .notes.has(RowNote::dropped_nothing_learned));
    // Templates may trim a content: what is given loses the same white space.
    const Sample trimmed =
        encode(step(R"(\n\nOne.)", R"( Two.\n)", R"( Six.\n)"), {.chat_template = own(kLlamaLike)}).at(0).sample;
    EXPECT_EQ(text_of(answer_of(trimmed, 0)), "\u0120Two.");
    EXPECT_EQ(text_of(answer_of(trimmed, 1)), "\u0120Six.");
    expect_error(Exit::data,
                 "rows.jsonl:1: key 'prompt': ends with an answer of the assistant; expected its first steps in", [&] {
                     encode(R"({"prompt": [{"role": "assistant", "content": "a"}], "initial_reason_steps": "", )"
                            R"("chosen": "b", "rejected": "c"})");
                 });
    expect_error(Exit::data, "here: the chat template own does not write the text of an answer as it is", [&] {
        encode(
            step("one", "two", "six"),
            {.chat_template = own("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper }}<|im_end|>\n"
                                  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")});
    });
}

}  // namespace
}  // namespace colonnade
