#include "data/text/chat_renderer.h"

#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

ChatRenderer renderer(const std::string& name) {
    static const auto tokenizer = Tokenizer::load(golden_file("template_golden.model"));
    return ChatRenderer(ChatTemplate::built_in(name), tokenizer, {});
}

/// The rendered chat, the assistant's content and end in braces.
std::string rendered(const std::string& name, const std::vector<Message>& messages, bool generation_prompt = false) {
    const Json none;
    const RenderedChat chat = renderer(name).render({messages, none, generation_prompt}, "here");
    std::string text;
    bool answering = false;
    size_t begin = 0;
    for (const ChatPart& part : chat.parts) {
        const bool answer = part.kind != ChatPart::Kind::scaffold && messages.at(part.message).role == "assistant";
        if (answer != answering) text += answer ? "{" : "}";
        answering = answer;
        text += chat.text.substr(begin, part.end - begin);
        begin = part.end;
    }
    return text + (answering ? "}" : "");
}

const std::vector<Message> kTwoTurns = {
    {"system", "S", {}}, {"user", " U1", {}}, {"assistant", "A1 ", {}}, {"user", "U2", {}}, {"assistant", "A2", {}}};

TEST(ChatTemplate, RendersEachFamily) {
    const struct {
        const char *name, *chat, *prompt;
    } cases[] = {
        {"plain", "<s>S U1{A1 </s>}U2{A2</s>}", "<s>S U1{A1 </s>}U2"},
        {"chatml",
         "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U1<|im_end|>\n<|im_start|>assistant\n{A1 <|im_end|>}\n"
         "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n{A2<|im_end|>}\n",
         "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U1<|im_end|>\n<|im_start|>assistant\n{A1 <|im_end|>}\n"
         "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n"},
        {"llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n U1 [/INST]{ A1 </s>}<s>[INST] U2 [/INST]{ A2 </s>}",
         "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n U1 [/INST]{ A1 </s>}<s>[INST] U2 [/INST]"},
        {"llama3",
         "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_"
         "header_id|>\n\nU1"
         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{A1<|eot_id|>}<|start_header_id|>user<|end_header_"
         "id|>\n\nU2"
         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{A2<|eot_id|>}",
         "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_"
         "header_id|>\n\nU1"
         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{A1<|eot_id|>}<|start_header_id|>user<|end_header_"
         "id|>\n\nU2"
         "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
        {"mistral", "<s> [INST] S\n\n U1 [/INST]{ A1 </s>} [INST] U2 [/INST]{ A2</s>}",
         "<s> [INST] S\n\n U1 [/INST]{ A1 </s>} [INST] U2 [/INST]"},
        {"zephyr",
         "<|system|>\nS</s>\n<|user|>\n U1</s>\n<|assistant|>\n{A1 </s>}\n<|user|>\nU2</s>\n<|assistant|>\n{A2</s>}\n",
         "<|system|>\nS</s>\n<|user|>\n U1</s>\n<|assistant|>\n{A1 </s>}\n<|user|>\nU2</s>\n<|assistant|>\n"},
        {"gemma",
         "<s><start_of_turn>user\nS\n\nU1<end_of_turn>\n<start_of_turn>model\n{A1<end_of_turn>}\n<start_of_turn>"
         "user\nU2<end_of_turn>\n"
         "<start_of_turn>model\n{A2<end_of_turn>}\n",
         "<s><start_of_turn>user\nS\n\nU1<end_of_turn>\n<start_of_turn>model\n{A1<end_of_turn>}\n<start_of_turn>"
         "user\nU2<end_of_turn>\n"
         "<start_of_turn>model\n"},
    };
    ASSERT_EQ(std::size(cases), chat_template_names().size());
    for (const auto& [name, chat, prompt] : cases) {
        EXPECT_EQ(rendered(name, kTwoTurns), chat);
        EXPECT_EQ(rendered(name, {kTwoTurns.begin(), kTwoTurns.end() - 1}, true), prompt);
    }
}

TEST(ChatTemplate, ToolTurns) {
    const std::vector<Message> chat = {
        {"user", "U", {}}, {"assistant", "call", {}}, {"tool", "T", {}}, {"assistant", "A", {}}};
    EXPECT_NE(rendered("chatml", chat).find("<|im_start|>tool\nT<|im_end|>"), std::string::npos);
    EXPECT_NE(rendered("llama3", chat).find("<|start_header_id|>ipython<|end_header_id|>\n\nT<|eot_id|>"),
              std::string::npos);
}

TEST(ChatTemplate, RefusesWhatItCannotRender) {
    const Message system{"system", "S", {}}, user{"user", "U", {}}, assistant{"assistant", "A", {}},
        tool{"tool", "T", {}};
    for (const char* name : {"llama2", "mistral", "gemma"}) {
        const auto refuses = [&](const std::vector<Message>& chat, const std::string& part) {
            expect_error(Exit::data, part, [&] { rendered(name, chat); });
        };
        refuses({user, user}, fmt::format("here: chat template {}:1:", name));
        refuses({user, user},
                "message 1 is from role 'user'; user and assistant messages must alternate: expected 'assistant'");
        refuses({user, assistant, assistant}, "message 2 is from role 'assistant'");
        refuses({system, assistant}, "message 1 is from role 'assistant'");
        refuses({user, assistant, tool}, "message 2 is from role 'tool'");
        refuses({user, system}, "message 1 is from role 'system'");
        refuses({system}, "the only message is the system message");
    }
    for (const char* name : {"plain", "chatml", "llama3", "zephyr"})
        EXPECT_NO_THROW(rendered(name, {user, user, assistant, assistant}));
    expect_error(Exit::data, "here: the chat has no messages", [] { rendered("chatml", {}); });
    expect_error(Exit::data, "here: the last message is from role 'assistant'", [&] {
        rendered("chatml", {user, assistant}, true);
    });
    expect_error(
        Exit::config,
        "unknown chat template 'alpaca'; expected one of plain, chatml, llama2, llama3, mistral, zephyr, gemma",
        [&] { rendered("alpaca", {user}); });
}

}  // namespace
}  // namespace colonnade
