// Chats turn by turn: what of a turn is learned, limits, refusals, and what turns reuse of each other.

#include <algorithm>

#include "tests/support/chat_templates.h"
#include "tests/support/chat_turns.h"
#include "tests/support/expect_error.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

std::shared_ptr<const Tokenizer> tokenizer() {
    static const auto made = small_tokenizer({.special = kFamilyMarkers});
    return made;
}

Encoder encoder(const std::string& source, EncodeOptions options = {.history = History::per_turn}) {
    options.chat_template = std::make_shared<const ChatTemplate>("own", source, "", ChatTemplate::Settings{});
    return {tokenizer(), options};
}

using Texts = std::vector<std::string>;

struct Turns {
    Texts texts;  ///< learned parts in {{ }}
    Encoded result;
    bool one_sequence = false;
};

Turns turns(const Encoder& encoder, const std::vector<Message>& messages, const Json& variables = {}) {
    Row row;
    row.messages = messages;
    row.variables = variables;
    Turns found;
    const Drafts drafts = turns_of(encoder, row, found.result);
    found.one_sequence = !drafts;
    if (drafts)
        for (const TokenDraft& draft : *drafts) found.texts.push_back(shown(*tokenizer(), draft.tokens, draft.weights));
    return found;
}

std::string from_user(const std::string& text) {
    return "<|im_start|>user\n" + text + "<|im_end|>\n";
}
const std::string kAsk = "<|im_start|>assistant\n", kOff = "<think>\n\n</think>\n\n";
const std::vector<Message> kThoughts = {user("U"),        answer("A", "T"), user("V"),
                                        answer("B", "R"), user("W"),        answer("C")};

TEST(History, EachAnswerHasItsReasoningAndSeesNoOther) {
    const std::string u = from_user("U") + kAsk, v = u + "A<|im_end|>\n" + from_user("V") + kAsk,
                      w = v + "B<|im_end|>\n" + from_user("W") + kAsk;
    const Texts all = {u + "{{<think>\nT\n</think>\n\nA<|im_end|>}}\n", v + "{{<think>\nR\n</think>\n\nB<|im_end|>}}\n",
                       w + "{{" + kOff + "C<|im_end|>}}\n"};
    for (const History history : {History::per_turn, History::automatic}) {
        const Turns found = turns(encoder(kQwenLike, {.history = history}), kThoughts);
        EXPECT_EQ(found.texts, all);
        EXPECT_EQ(found.result.notes, RowNotes{RowNote::per_turn});
    }
    EXPECT_TRUE(turns(encoder(kQwenLike, {.history = History::as_rendered}), kThoughts).one_sequence);
    std::vector<Message> open = kThoughts;
    open.push_back(user("X"));
    EXPECT_EQ(turns(encoder(kQwenLike), open).texts, all) << "nothing answers the last question";
}

TEST(History, OptionsDecideWhatIsLearnedOfATurn) {
    const std::string u = from_user("U") + kAsk, v = u + "A<|im_end|>\n" + from_user("V") + kAsk,
                      w = v + "B<|im_end|>\n" + from_user("W") + kAsk;
    const auto with = [](EncodeOptions options, std::vector<Message> messages = kThoughts) {
        options.history = History::per_turn;
        return turns(encoder(kQwenLike, options), messages).texts;
    };
    const std::string t = "<think>\nT\n</think>\n\n", r = "<think>\nR\n</think>\n\n", end = "<|im_end|>";
    const std::string last = w + "{{" + kOff + "C" + end + "}}\n";
    EXPECT_EQ(with({.train_on_thinking = false})[0], u + t + "{{A" + end + "}}\n");
    EXPECT_EQ(with({.mask_history = true}), Texts{last});
    EXPECT_EQ(with({.train_on_eos = TrainOnEos::none})[1], v + "{{" + r + "B}}" + end + "\n");
    EXPECT_EQ(with({.train_on_eos = TrainOnEos::last}),
              (Texts{u + "{{" + t + "A}}" + end + "\n", v + "{{" + r + "B}}" + end + "\n", last}));
    std::vector<Message> some = kThoughts;
    some[1].weight = 0;
    EXPECT_EQ(with({}, some), (Texts{v + "{{" + r + "B" + end + "}}\n", last}));

    const std::string learned_v = "<|im_start|>user\n{{V" + end + "}}\n" + kAsk;
    EXPECT_EQ(with({.roles_to_train = {"user", "assistant"}})[1],
              u + "A" + end + "\n" + learned_v + "{{" + r + "B" + end + "}}\n")
        << "a question is learned once, in its own turn";
    EXPECT_EQ(with({.train_on_eos = TrainOnEos::all})[1],
              u + "A" + end + "\n<|im_start|>user\nV{{" + end + "}}\n" + kAsk + "{{" + r + "B" + end + "}}\n");
    EXPECT_EQ(with({.roles_to_train = {"user"}}),
              Texts{"<|im_start|>user\n{{U" + end + "}}\n" + kAsk + "A" + end + "\n<|im_start|>user\n{{V" + end +
                    "}}\n" + kAsk + "B" + end + "\n<|im_start|>user\n{{W" + end + "}}\n"});
}

TEST(History, EveryTurnHasItsWeight) {
    const auto learned = [](std::vector<float> weights, float of_row) {
        Row row;
        row.messages = kThoughts;
        row.weight = of_row;
        for (size_t turn = 0; turn < weights.size(); ++turn) row.messages[2 * turn + 1].weight = weights[turn];
        const Encoded result = encoder(kQwenLike).encode(row, "here");
        std::string text = result.notes.dropped() ? "dropped" : "";
        for (const Sequence& s : result.sample.sequences)
            for (const auto& [begin, end, weight] : s.learned) {
                const std::vector<int32_t> whole =
                    result.sample.whole(static_cast<size_t>(&s - &result.sample.sequences[0]));
                text +=
                    fmt::format("{}:{} ", weight, tokenizer()->decode({whole.begin() + begin, whole.begin() + end}));
            }
        return text;
    };
    const std::string a = "<think>\nT\n</think>\n\nA ", b = "<think>\nR\n</think>\n\nB ", c = kOff + "C ";
    EXPECT_EQ(learned({0.5f, 1, 3}, 1), "0.5:" + a + "1:" + b + "3:" + c);
    EXPECT_EQ(learned({0.5f, 0, 3}, 2), "1:" + a + "6:" + c);
    EXPECT_EQ(learned({0.25f, 0.25f, 0.25f}, 1), "0.25:" + a + "0.25:" + b + "0.25:" + c);
    EXPECT_EQ(learned({1, 1, 1}, 0), "dropped");
}

TEST(History, WhatTheGenerationPromptWritesIsNotLearned) {
    const Json off = {{"enable_thinking", false}};
    const std::vector<Message> chat = {user("U"), answer("A"), user("V"), answer("B")};
    const std::string u = from_user("U") + kAsk, v = u + "A<|im_end|>\n" + from_user("V") + kAsk;
    EXPECT_EQ(turns(encoder(kQwenLike, {}), chat, off).texts,
              (Texts{u + kOff + "{{A<|im_end|>}}\n", v + kOff + "{{B<|im_end|>}}\n"}));
    EXPECT_EQ(turns(encoder(kOpenedLike, {}),
                    {user("U"), answer("<think>\nT</think>\n\nA"), user("V"), answer("<think>\nR</think>\n\nB")})
                  .texts,
              (Texts{u + "<think>\n{{T</think>\n\nA<|im_end|>}}\n", v + "<think>\n{{R</think>\n\nB<|im_end|>}}\n"}));
}

TEST(History, AnEndTokenOfTheLastAnswerMakesTurns) {
    const std::string u = "<|start|>user<|message|>U<|end|><|start|>assistant", mid = "<|channel|>final<|message|>",
                      v = "<|start|>user<|message|>V<|end|><|start|>assistant";
    EXPECT_EQ(turns(encoder(kChannelsLike, {}), {user("U"), answer("A"), user("V"), answer("B")}).texts,
              (Texts{u + "{{" + mid + "A<|return|>}}", u + mid + "A<|end|>" + v + "{{" + mid + "B<|return|>}}"}));
}

TEST(History, AChatThatKeepsItsPastIsOneSequence) {
    const std::vector<Message> chat = {user("U"), answer("A"), user("V"), answer("B"), user("W")};
    // This one learns the last answer only, and writes all alike.
    const std::string last_only =
        "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}";
    for (const std::string& source : {kLlamaLike, kGenerationLike, kOpenedLike, kDistilledLike, last_only}) {
        const Turns found = turns(encoder(source, {}), chat);
        EXPECT_TRUE(found.one_sequence);
        EXPECT_EQ(found.result.notes, RowNotes{});
    }
    // One turn by turn begins as the next one does.
    const Texts texts = turns(encoder(kGenerationLike), chat).texts;
    ASSERT_EQ(texts.size(), 2u);
    std::string first = texts[0];
    for (const char* mark : {"{{", "}}"}) first.erase(first.find(mark), 2);
    EXPECT_TRUE(texts[1].starts_with(first)) << texts[1];
}

TEST(History, LimitsApplyToEveryTurn) {
    const auto with = [](int64_t max_length, ExcessLength policy) {
        return turns(encoder(kQwenLike, {.max_length = max_length, .excess_length = policy}), kThoughts);
    };
    const Turns whole = with(1000, ExcessLength::error);
    ASSERT_EQ(whole.texts.size(), 3u);
    const int64_t longest = whole.result.full_length;
    const Turns dropped = with(longest - 1, ExcessLength::drop);
    EXPECT_EQ(dropped.texts, (Texts{whole.texts[0], whole.texts[1]}));
    EXPECT_EQ(dropped.result.full_length, longest);
    EXPECT_EQ(dropped.result.notes, (RowNotes{RowNote::per_turn, RowNote::turns_left_out}));

    const Turns cut = with(longest - 2, ExcessLength::truncate);
    ASSERT_EQ(cut.texts.size(), 3u);
    EXPECT_TRUE(cut.texts[2].ends_with("{{" + kOff + "C}}")) << cut.texts[2];
    EXPECT_EQ(cut.result.notes, (RowNotes{RowNote::per_turn, RowNote::truncated}));

    const Turns none = with(3, ExcessLength::drop);
    EXPECT_TRUE(none.texts.empty() && !none.one_sequence);
    EXPECT_TRUE(none.result.notes.has(RowNote::dropped_too_long));
    EXPECT_TRUE(with(3, ExcessLength::truncate).result.notes.has(RowNote::dropped_nothing_learned));
    expect_error(Exit::data, "here: message 5 has " + std::to_string(longest) + " tokens with those before it",
                 [&] { with(longest - 1, ExcessLength::error); });
}

TEST(History, ATurnThatCouldNotBeGeneratedIsRefusedOrNoted) {
    std::vector<Message> chat = {user("U"), answer("<think>\nT</think>\n\nA"), user("V"), answer("B")};
    expect_error(Exit::data,
                 "here: message 3 is not written as it would be generated: the chat template own asks for it with "
                 "\"im_start|>assistant\\n<think>\\n\" and then writes \"im_start|>assistant\\nB<|im_end|>",
                 [&] { turns(encoder(kOpenedLike), chat); });
    const Turns noted = turns(encoder(kOpenedLike, {}), chat);
    EXPECT_TRUE(noted.one_sequence);
    EXPECT_EQ(noted.result.notes, RowNotes{RowNote::history_not_exact});
    expect_error(Exit::config, "train_on_prompt and history: per_turn contradict",
                 [] { encoder(kQwenLike, {.train_on_prompt = true, .history = History::per_turn}); });
    EXPECT_TRUE(turns(encoder(kQwenLike, {.train_on_prompt = true}), kThoughts).one_sequence);
}

TEST(History, AChatOfAnyLengthTakesBoundedTime) {
    std::vector<Message> chat;
    for (int i = 0; i < 20000; ++i) {
        chat.push_back(user("U"));
        chat.push_back(answer("A", "T"));
    }
    expect_error(Exit::data,
                 "here: 20000 turns, each rendered with the messages before it, have more than 128 MiB of text",
                 [&] { turns(encoder(kQwenLike), chat); });
}

/// A prompt that reuses tokens of the prompt before it has those of a prompt that is tokenised alone.
TEST(History, PromptsAreThoseOfGeneration) {
    const Texts words = {"x",
                         " a",
                         "\n",
                         "\n\n",
                         "  ",
                         "12",
                         " <|im_end|> ",
                         "<think>",
                         "</think>",
                         "\u00e9t\u00e9 ",
                         "\U0001f600",
                         "def f(x):\n\treturn x",
                         "word "};
    uint32_t seed = 1;
    const auto text = [&](uint32_t most) {
        std::string made = "w";
        for (uint32_t n = (seed = seed * 1664525 + 1013904223) >> 16; made.size() < n % most;)
            made += words[((seed = seed * 1664525 + 1013904223) >> 16) % words.size()];
        return made + "w";
    };
    size_t compared = 0;
    for (const std::string family :
         {"qwen2", "llama3", "gemma", "deepseek_v3", "llama2", "metaspace_first", "metaspace_always"}) {
        const auto small = small_tokenizer({.special = kFamilyMarkers, .family = family});
        for (const std::string& source : {kQwenLike, kLlamaLike, kMistralLike, kChannelsLike}) {
            EncodeOptions options{.max_length = 1 << 20, .history = History::per_turn};
            EncodeOptions once = options;
            options.chat_template = std::make_shared<const ChatTemplate>("own", source, "", ChatTemplate::Settings{});
            const Encoder encoder(small, options);
            Row row;
            for (int i = 0; i < 12; ++i) {
                row.messages.push_back(user(text(900)));
                row.messages.push_back(answer(text(900), source == kQwenLike ? text(2000) : ""));
            }
            Encoded result;
            const Drafts drafts = turns_of(encoder, row, result);
            ASSERT_EQ(drafts.value().size(), 12u);
            for (size_t i = 0; i < 12; ++i) {
                const std::vector<int32_t> prompt = encoder.encode_prompt(
                    {row.messages.begin(), row.messages.begin() + static_cast<std::ptrdiff_t>(2 * i + 1)});
                const std::vector<int32_t>& tokens = (*drafts)[i].tokens;
                ASSERT_LT(prompt.size(), tokens.size());
                EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), tokens.begin())) << family << ", turn " << i;
                compared += prompt.size();
            }
            once.chat_template = options.chat_template;
            once.history = History::as_rendered;
            EXPECT_EQ(drafts->back().tokens, Encoder(small, once).encode(row, "here").sample.sequences[0].tokens)
                << family;
        }
    }
    EXPECT_GT(compared, 100000u);
}

TEST(History, APromptReusesNoTokenThatALongerTextChanges) {
    const auto own = small_tokenizer({.special = {"<|im_start|>", "<|im_end|>", "<|im_start|>assistant\nA"}});
    EncodeOptions options{.history = History::per_turn};
    options.chat_template = std::make_shared<const ChatTemplate>("own", kQwenLike, "", ChatTemplate::Settings{});
    const Encoder encoder(own, options);
    Row row;
    row.messages = kThoughts;
    Encoded result;
    const std::vector<int32_t> tokens = turns_of(encoder, row, result).value()[1].tokens,
                               prompt = encoder.encode_prompt({kThoughts[0], kThoughts[1], kThoughts[2]});
    EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), tokens.begin())) << shown(*own, tokens, {});
}

TEST(History, WhatATurnReusesIsNotLearnedAgain) {
    const std::string u(500, 'u'), v(500, 'v');
    const EncodeOptions options{.roles_to_train = {"user", "assistant"}, .history = History::per_turn};
    const std::vector<Message> chat = {user(u), user(v), answer("A"), user("W"), answer("B")};
    const std::string ask = "<|im_start|>user\n", end = "<|im_end|>";
    EXPECT_EQ(turns(encoder(kGenerationLike, options), chat).texts,
              (Texts{ask + "{{" + u + end + "}}" + ask + "{{" + v + end + "}}" + kAsk + "{{A" + end + "}}",
                     ask + u + end + ask + v + end + kAsk + "A" + end + ask + "{{W" + end + "}}" + kAsk + "{{B" + end +
                         "}}"}));
}

}  // namespace
}  // namespace colonnade
