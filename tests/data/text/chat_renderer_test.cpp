#include "data/text/chat_renderer.h"

#include "tests/support/chat_templates.h"
#include "tests/support/expect_error.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

using Lines = std::vector<std::string>;

ChatRenderer renderer(const std::string& source) {
    const auto tokenizer = small_tokenizer({.special = kFamilyMarkers});
    return ChatRenderer(std::make_shared<const ChatTemplate>("own", source, "", ChatTemplate::Settings{}), tokenizer,
                        {});
}

std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) result += c == '\n' ? std::string("\\n") : std::string(1, c);
    return result;
}

/// The parts of a chat, neighbours of one kind and message joined: "content 1: A".
Lines painted(const std::string& source, const std::vector<Message>& messages, const Json& variables = {},
              bool generation_prompt = false) {
    const RenderedChat chat = renderer(source).render({messages, variables, generation_prompt}, "here");
    constexpr const char* names[] = {"scaffold", "content", "thinking", "tool_calls", "end"};
    Lines lines;
    std::string last;
    size_t begin = 0;
    for (const ChatPart& part : chat.parts) {
        std::string head = names[static_cast<size_t>(part.kind)];
        if (part.kind != ChatPart::Kind::scaffold) head += fmt::format(" {}", part.message);
        if (head != last) lines.push_back(head + ": ");
        last = head;
        lines.back() += escaped(chat.text.substr(begin, part.end - begin));
        begin = part.end;
    }
    return lines;
}

Message with(Message message, const Json& more) {
    message.more = more;
    return message;
}

const Message kSystem{"system", "S", {}, {}}, kUser{"user", "U", {}, {}}, kAnswer{"assistant", "A", {}, {}},
    kQuestion{"user", "V", {}, {}};
const Message kCall =
    with({"assistant", "", {}, {}},
         {{"tool_calls", {{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"x", 1}}}}}}}}});
const Message kResult{"tool", "R", {}, {}}, kThinking = with({"assistant", "A", {}, {}}, {{"reasoning_content", "T"}});
const Json kTools = {{"tools", {{{"type", "function"}, {"function", {{"name", "f"}}}}}}};

const Message kSpelled{"assistant", "<think>\nT\n</think>\n\nA", {}, {}}, kEmpty{"assistant", "", {}, {}};

TEST(ChatRenderer, ThinkingIsWrittenAfterTheLastQuestionOnly) {
    EXPECT_EQ(painted(kQwenLike, {kSystem, kUser, kThinking, kQuestion, kThinking}),
              (Lines{R"(scaffold: <|im_start|>system\n)", "content 0: S", "end 0: <|im_end|>",
                     R"(scaffold: \n<|im_start|>user\n)", "content 1: U", "end 1: <|im_end|>",
                     R"(scaffold: \n<|im_start|>assistant\n)", "content 2: A", "end 2: <|im_end|>",
                     R"(scaffold: \n<|im_start|>user\n)", "content 3: V", "end 3: <|im_end|>",
                     R"(scaffold: \n<|im_start|>assistant\n)", R"(thinking 4: <think>\nT\n</think>\n\n)",
                     "content 4: A", "end 4: <|im_end|>", R"(scaffold: \n)"}));
}

TEST(ChatRenderer, ThinkingMayBeSpelledInTheContent) {
    EXPECT_EQ(painted(kQwenLike, {kUser, kSpelled}),
              (Lines{R"(scaffold: <|im_start|>user\n)", "content 0: U", "end 0: <|im_end|>",
                     R"(scaffold: \n<|im_start|>assistant\n)", R"(thinking 1: <think>\nT\n</think>\n\n)",
                     "content 1: A", "end 1: <|im_end|>", R"(scaffold: \n)"}));
    EXPECT_EQ(painted(kDistilledLike, {kSystem, kUser, kSpelled, kQuestion, kAnswer}),
              (Lines{"scaffold: <s>", "content 0: S", "scaffold: <|User|>", "content 1: U", "scaffold: <|Assistant|>",
                     R"(content 2: \n\nA)", "end 2: <|end_of_sentence|>", "scaffold: <|User|>", "content 3: V",
                     "scaffold: <|Assistant|>", "content 4: A", "end 4: <|end_of_sentence|>"}));
    // A word about the tags is no thinking.
    EXPECT_EQ(painted(kGenerationLike, {kUser, {"assistant", "Write <think>x</think>.", {}, {}}})[4],
              "content 1: Write <think>x</think>.");
}

TEST(ChatRenderer, ToolCallsAndTheirMarkup) {
    Message thought = kCall, said = kCall;
    thought.more["reasoning_content"] = "T";
    said.content = "Look.";
    EXPECT_EQ(
        painted(kQwenLike, {kUser, thought, kResult, kThinking}, kTools),
        (Lines{
            R"(scaffold: <|im_start|>system\n# Tools\n{"type": "function", "function": {"name": "f"}}\n<|im_end|>\n<|im_start|>user\n)",
            "content 0: U", "end 0: <|im_end|>", R"(scaffold: \n<|im_start|>assistant\n)",
            R"(thinking 1: <think>\nT\n</think>\n\n)",
            R"(tool_calls 1: <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>)", "end 1: <|im_end|>",
            R"(scaffold: \n<|im_start|>user\n<tool_response>\n)", "content 2: R",
            R"(scaffold: \n</tool_response><|im_end|>\n<|im_start|>assistant\n)",
            R"(thinking 3: <think>\nT\n</think>\n\n)", "content 3: A", "end 3: <|im_end|>", R"(scaffold: \n)"}));
    EXPECT_EQ(
        painted(kQwenLike, {kUser, said, kResult, kResult, kAnswer, kQuestion}, kTools, true),
        (Lines{
            R"(scaffold: <|im_start|>system\n# Tools\n{"type": "function", "function": {"name": "f"}}\n<|im_end|>\n<|im_start|>user\n)",
            "content 0: U", "end 0: <|im_end|>", R"(scaffold: \n<|im_start|>assistant\n)", "content 1: Look.",
            R"(tool_calls 1: <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>)", "end 1: <|im_end|>",
            R"(scaffold: \n<|im_start|>user\n<tool_response>\n)", "content 2: R",
            R"(scaffold: \n</tool_response><|im_end|>\n<|im_start|>user\n<tool_response>\n)", "content 3: R",
            R"(scaffold: \n</tool_response><|im_end|>\n<|im_start|>assistant\n)", "content 4: A", "end 4: <|im_end|>",
            R"(scaffold: \n<|im_start|>user\n)", "content 5: V", "end 5: <|im_end|>",
            R"(scaffold: \n<|im_start|>assistant\n)"}));
    // A call may end with a token of its own.
    EXPECT_EQ(
        painted(kLlamaLike, {kUser, kCall, kResult, kAnswer}, kTools),
        (Lines{
            R"(scaffold: <s><|start_header_id|>user<|end_header_id|>\n\n[{"type": "function", "function": {"name": "f"}}]\n\n)",
            "content 0: U", "end 0: <|eot_id|>", R"(scaffold: <|start_header_id|>assistant<|end_header_id|>\n\n)",
            R"(tool_calls 1: {"name": "f", "parameters": {"x": 1}})", "end 1: <|eom_id|>",
            R"(scaffold: <|start_header_id|>ipython<|end_header_id|>\n\n)", R"(content 2: "R")", "end 2: <|eot_id|>",
            R"(scaffold: <|start_header_id|>assistant<|end_header_id|>\n\n)", "content 3: A", "end 3: <|eot_id|>"}));
}

TEST(ChatRenderer, EmptyAnswersEnd) {
    EXPECT_EQ(painted(kQwenLike, {kUser, kAnswer, kQuestion, kEmpty}),
              (Lines{R"(scaffold: <|im_start|>user\n)", "content 0: U", "end 0: <|im_end|>",
                     R"(scaffold: \n<|im_start|>assistant\n)", "content 1: A", "end 1: <|im_end|>",
                     R"(scaffold: \n<|im_start|>user\n)", "content 2: V", "end 2: <|im_end|>",
                     R"(scaffold: \n<|im_start|>assistant\n<think>\n\n</think>\n\n)", "end 3: <|im_end|>",
                     R"(scaffold: \n)"}));
    EXPECT_EQ(
        painted(kDistilledLike, {kUser, kEmpty}),
        (Lines{"scaffold: <s><|User|>", "content 0: U", "scaffold: <|Assistant|>", "end 1: <|end_of_sentence|>"}));
    EXPECT_EQ(painted(kChannelsLike, {kUser, kEmpty}),
              (Lines{"scaffold: <|start|>user<|message|>", "content 0: U", "end 0: <|end|>",
                     "scaffold: <|start|>assistant<|channel|>final<|message|>", "end 1: <|return|>"}));
}

TEST(ChatRenderer, WhiteSpaceAroundContents) {
    EXPECT_EQ(
        painted(kLlamaLike, {kSystem, {"user", " \nU ", {}, {}}, {"assistant", "\n A\n", {}, {}}, kQuestion, kEmpty}),
        (Lines{R"(scaffold: <s><|start_header_id|>system<|end_header_id|>\n\n)", "content 0: S", "end 0: <|eot_id|>",
               R"(scaffold: <|start_header_id|>user<|end_header_id|>\n\n)", "content 1: U", "end 1: <|eot_id|>",
               R"(scaffold: <|start_header_id|>assistant<|end_header_id|>\n\n)", "content 2: A", "end 2: <|eot_id|>",
               R"(scaffold: <|start_header_id|>user<|end_header_id|>\n\n)", "content 3: V", "end 3: <|eot_id|>",
               R"(scaffold: <|start_header_id|>assistant<|end_header_id|>\n\n)", "end 4: <|eot_id|>"}));
    EXPECT_EQ(painted(kMistralLike, {kUser, {"assistant", " A ", {}, {}}, kQuestion, kEmpty}),
              (Lines{"scaffold: <s>[INST] ", "content 0: U", "scaffold: [/INST]", "content 1:   A ", "end 1: </s>",
                     "scaffold: [INST] ", "content 2: V", "scaffold: [/INST] ", "end 3: </s>"}));
    EXPECT_EQ(painted(kGenerationLike, {kUser, {"assistant", "\n A \n", {}, {}}}),
              (Lines{R"(scaffold: <|im_start|>user\n)", "content 0: U", "end 0: <|im_end|>",
                     R"(scaffold: <|im_start|>assistant\n)", R"(content 1: \n A \n)", "end 1: <|im_end|>"}));
}

TEST(ChatRenderer, SystemMessageWithinTheLastQuestion) {
    EXPECT_EQ(painted(kMistralLike, {kSystem, kUser, kAnswer, kQuestion, kAnswer}),
              (Lines{"scaffold: <s>[INST] ", "content 1: U", "scaffold: [/INST]", "content 2:  A", "end 2: </s>",
                     "scaffold: [INST] ", "content 0: S", R"(scaffold: \n\n)", "content 3: V", "scaffold: [/INST]",
                     "content 4:  A", "end 4: </s>"}));
}

TEST(ChatRenderer, ChannelsEndTheLastAnswerInAWayOfTheirOwn) {
    EXPECT_EQ(painted(kChannelsLike, {kUser, kThinking, kQuestion, kThinking}),
              (Lines{"scaffold: <|start|>user<|message|>", "content 0: U", "end 0: <|end|>",
                     "scaffold: <|start|>assistant", "content 1: <|channel|>final<|message|>A", "end 1: <|end|>",
                     "scaffold: <|start|>user<|message|>", "content 2: V", "end 2: <|end|>",
                     "scaffold: <|start|>assistant", "thinking 3: <|channel|>analysis<|message|>T<|end|>",
                     "content 3: <|start|>assistant<|channel|>final<|message|>A", "end 3: <|return|>"}));
}

TEST(ChatRenderer, GenerationBlocksDecideForAnswers) {
    EXPECT_EQ(painted(kGenerationLike, {kSystem, kUser, kAnswer, kQuestion, kEmpty}),
              (Lines{R"(scaffold: <|im_start|>system\n)", "content 0: S", "end 0: <|im_end|>",
                     R"(scaffold: <|im_start|>user\n)", "content 1: U", "end 1: <|im_end|>",
                     R"(scaffold: <|im_start|>assistant\n)", "content 2: A", "end 2: <|im_end|>",
                     R"(scaffold: <|im_start|>user\n)", "content 3: V", "end 3: <|im_end|>",
                     R"(scaffold: <|im_start|>assistant\n)", "end 4: <|im_end|>"}));
}

TEST(ChatRenderer, EndTokens) {
    const std::pair<const std::string*, const char*> cases[] = {
        {&kQwenLike, "<|im_end|>"},      {&kLlamaLike, "<|eot_id|>"},
        {&kMistralLike, "</s>"},         {&kDistilledLike, "<|end_of_sentence|>"},
        {&kChannelsLike, "<|return|>"},  {&kGenerationLike, "<|im_end|>"},
        {&kWithoutSystem, "<|im_end|>"},
    };
    const auto tokenizer = small_tokenizer({.special = kFamilyMarkers});
    for (const auto& [source, end] : cases) {
        EXPECT_EQ(renderer(*source).end_token(), tokenizer->piece_id(end)) << *source;
        EXPECT_TRUE(renderer(*source).spelled_out().empty()) << *source;
    }
    EXPECT_EQ(renderer("{% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}").end_token(),
              std::nullopt);
    // A tokenizer that lacks the markers spells them out.
    const auto chat_template = std::make_shared<const ChatTemplate>("own", kChannelsLike, "", ChatTemplate::Settings{});
    const ChatRenderer bare(chat_template, small_tokenizer({}), {});
    EXPECT_EQ(bare.spelled_out(), (Lines{"<|start|>", "<|message|>", "<|end|>", "<|channel|>", "<|return|>"}));
    EXPECT_EQ(bare.end_token(), std::nullopt);
}

TEST(ChatRenderer, RefusesToLoseAPartOfAChat) {
    const auto refuses = [](const std::string& source, const std::vector<Message>& messages, const std::string& what,
                            const Json& variables = {}) {
        expect_error(
            Exit::data,
            "here: the chat template own leaves out " + what + "; choose a template that writes it (chat_template: a ",
            [&] { painted(source, messages, variables); });
    };
    const Json documents = {{"documents", {{{"title", "D"}, {"text", "d"}}}}};
    Message said = kCall, thought = kCall;
    said.content = "Look.";
    thought.more["reasoning_content"] = "T";
    refuses(kWithoutSystem, {kSystem, kUser, kAnswer}, "message 0, from role 'system'");
    refuses(kQwenLike, {kUser, {"developer", "D", {}, {}}, kAnswer}, "message 1, from role 'developer'");
    refuses(kMistralLike, {kSystem, kUser, kAnswer}, "the tools of the row", kTools);
    refuses(kQwenLike, {kUser, kAnswer}, "the documents of the row", documents);
    refuses(kChannelsLike, {kUser, kCall, kResult, kAnswer}, "the tool_calls of message 1");
    Message twice = kCall;
    twice.more["tool_calls"].push_back(twice.more["tool_calls"][0]);
    refuses(kLlamaLike, {kUser, twice}, "some of the tool_calls of message 1");
    EXPECT_NO_THROW(painted(kQwenLike, {kUser, twice}));
    refuses("{% for m in messages %}{{ m.content[:3] }}{% endfor %}", {{"user", "abcd", {}, {}}, kAnswer},
            "a part of the content of message 0, from role 'user'");
    refuses(kLlamaLike, {kUser, said, kResult, kAnswer}, "the content of message 1, from role 'assistant'");
    refuses(kLlamaLike, {kUser, kThinking}, "the reasoning of message 1");
    refuses(kLlamaLike, {kUser, kThinking, kQuestion, kAnswer}, "the reasoning of message 1");
    refuses(kLlamaLike, {kUser, thought}, "the reasoning of message 1");
    refuses(kDistilledLike, {kUser, kSpelled}, "a part of the content of message 1, from role 'assistant'");
    refuses(kQwenLike, {kUser, {"assistant", "Before. <think>T</think> A", {}, {}}},
            "a part of the content of message 1, from role 'assistant'");
    for (const char* key : {"reasoning", "thinking", "reasoning_content"})
        refuses(kGenerationLike, {kUser, with(kAnswer, {{key, "T"}})}, "the reasoning of message 1");
    // Tools that only some chats write.
    const std::string first_tool =
        "{% for m in messages %}{% if tools and m.role == 'system' %}{{ tools | tojson }}{% endif %}" +
        kGenerationLike + "{% break %}{% endfor %}";
    EXPECT_NO_THROW(painted(first_tool, {kSystem, kUser, kAnswer}, kTools));
    refuses(first_tool, {kUser, kAnswer}, "the tools of the row", kTools);
}

TEST(ChatRenderer, NothingIsLostInThese) {
    const Message blank{"system", " \n", {}, {}};
    EXPECT_NO_THROW(painted(kWithoutSystem, {blank, kUser, kAnswer}));
    EXPECT_NO_THROW(painted(kLlamaLike, {{"user", "\u3000\u00a0U\u2003", {}, {}}, kAnswer}))
        << "white space of Unicode";
    EXPECT_NO_THROW(painted(kQwenLike, {kUser, kThinking, kQuestion, kAnswer})) << "thinking of an earlier answer";
    EXPECT_NO_THROW(painted(kDistilledLike, {kUser, kSpelled, kQuestion, kAnswer})) << "thinking of an earlier answer";
    EXPECT_NO_THROW(painted(kLlamaLike, {kUser, kAnswer}, {{"tools", Json::array()}, {"documents", nullptr}}));
    EXPECT_NO_THROW(
        painted(kLlamaLike, {kUser, with(kAnswer, {{"tool_calls", Json::array()}, {"reasoning", ""}, {"name", "n"}})}));
    expect_error(Exit::data, "here: chat template own:", [] { painted(kMistralLike, {kUser, kAnswer, kResult}); });
}

}  // namespace
}  // namespace colonnade
