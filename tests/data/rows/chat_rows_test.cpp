// What messages hold besides their text, and what stands beside them: tool calls, reasoning, switches, system prompts,
// variables of the chat template.

#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class ChatRows : public RowTest {};

constexpr const char* call = R"([{"type":"function","function":{"name":"weather","arguments":{"city":"Oslo"}}}])";

TEST_F(ChatRows, ToolCallsOfEveryConventionBecomeTheSame) {
    for (const char* assistant : {
             R"({"role": "assistant", "content": null, "tool_calls":
                [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]})",
             R"({"role": "assistant", "content": "", "tool_calls":
                [{"type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]})",
             R"({"role": "assistant", "tool_calls":
                "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}}]"})",
             R"({"role": "assistant", "content": null, "function_call":
                {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}})",
             R"({"role": "tool_call", "content": "{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}"})",
         }) {
        const Row row = first_row(fmt::format(R"({{"messages": [{{"role": "user", "content": "q"}}, {},
                                                  {{"role": "tool", "content": "-3 C"}}]}})",
                                              assistant));
        EXPECT_EQ(chat_text(row), "(user: q) (assistant: ) (tool: -3 C)") << assistant;
        EXPECT_EQ(row.messages[1].more["tool_calls"].dump(), call) << assistant;
        EXPECT_EQ(row.messages[1].more.size(), 1u) << assistant;
    }
    const Row row = first_row(
        R"({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call",
            "value": "[{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}]"}, {"from": "observation", "value": "-3 C"}],
            "tools": "[{\"name\": \"weather\", \"parameters\": {}}]"})");
    EXPECT_EQ(chat_text(row), "(user: q) (assistant: ) (tool: -3 C)");
    EXPECT_EQ(row.messages[1].more["tool_calls"].dump(), call);
    EXPECT_EQ(row.variables.dump(), R"({"tools":[{"type":"function","function":{"name":"weather","parameters":{}}}]})");
}

/// Arguments that are no JSON object, and numbers, stay as they are written.
TEST_F(ChatRows, KeysThatTemplatesReadAreKept) {
    const Row row = first_row(
        R"({"messages": [{"role": "user", "content": "q", "name": "Ann"}, {"role": "assistant", "reasoning_content": "r",
            "content": "a", "audio": null, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "x=1"}},
            {"id": "c2", "function": {"name": "f", "arguments": {"i": 1, "f": 1.0}}}]},
            {"role": "ipython", "content": "o", "tool_call_id": "c1"}], "documents": [{"title": "t", "text": "x"}],
            "enable_thinking": false, "chat_template_kwargs": "{\"reasoning_effort\": \"low\"}", "tools": []})");
    EXPECT_EQ(row.messages[0].more.dump(), R"({"name":"Ann"})");
    EXPECT_EQ(row.messages[1].more.dump(),
              R"({"reasoning_content":"r","tool_calls":[{"id":"c1","function":{"name":"f","arguments":"x=1"}},)"
              R"({"id":"c2","function":{"name":"f","arguments":{"i":1,"f":1.0}}}]})");
    EXPECT_EQ(row.messages[2].role, "tool");
    EXPECT_EQ(row.messages[2].more.dump(), R"({"tool_call_id":"c1"})");
    EXPECT_EQ(row.variables.dump(),
              R"({"enable_thinking":false,"documents":[{"title":"t","text":"x"}],"reasoning_effort":"low"})");
    EXPECT_TRUE(row.unused.empty());
    EXPECT_TRUE(
        first_row(R"({"messages": [{"role": "user", "content": "q", "name": null}]})").messages[0].more.is_null());
}

TEST_F(ChatRows, ToolsOfMessagesStayAsTheyAre) {
    const auto tools = [&](const char* json) {
        const Json variables =
            first_row(fmt::format(R"({{"messages": [{{"role": "user", "content": "q"}}], {}}})", json)).variables;
        return variables.is_null() ? "none" : variables.at("tools").dump();
    };
    EXPECT_EQ(tools(R"("tools": [{"name": "f"}])"), R"([{"name":"f"}])");
    EXPECT_EQ(tools(R"("tools": "[{\"name\": \"f\"}]")"), R"([{"name":"f"}])");
    EXPECT_EQ(tools(R"("tools": ["{\"name\": \"f\"}", "search"])"), R"([{"name":"f"},"search"])");
    EXPECT_EQ(tools(R"("functions": [{"name": "f"}])"), R"([{"type":"function","function":{"name":"f"}}])");
    EXPECT_EQ(tools(R"("tools": "")"), "none");
}

TEST_F(ChatRows, SwitchesOfEveryConvention) {
    const auto weight = [&](const char* json) {
        return first_row(fmt::format(R"({{"messages": [{{"role": "assistant", "content": "a", {}}}]}})", json))
            .messages[0]
            .weight;
    };
    for (const char* learned :
         {R"("train": true)", R"("training": true)", R"("weight": 1)", R"("weight": 1.0)", R"("loss": true)",
          R"("loss_weight": 1)", R"("masked": false)", R"("train": true, "weight": 1)"})
        EXPECT_EQ(weight(learned), std::optional(1.0f)) << learned;
    for (const char* masked :
         {R"("train": false)", R"("training": 0)", R"("weight": 0)", R"("loss": false)", R"("masked": true)"})
        EXPECT_EQ(weight(masked), std::optional(0.0f)) << masked;
    for (const char* none : {R"("train": null)", R"("name": "a")"}) EXPECT_EQ(weight(none), std::nullopt) << none;
    for (const char* some : {R"("weight": 0.25)", R"("loss_weight": 0.25)", R"("weight": 0.25, "loss_weight": 0.25)",
                             R"("train": true, "weight": 0.25)", R"("weight": 0.25, "masked": false, "loss": 1)"})
        EXPECT_EQ(weight(some), std::optional(0.25f)) << some;
}

TEST_F(ChatRows, ASystemPromptBesideMessagesComesFirst) {
    const char* turns = R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}])";
    EXPECT_EQ(chat_text(first_row(fmt::format(R"({{"system": "You are terse.", "messages": {}}})", turns))),
              "(system: You are terse.) (user: Hi) (assistant: Yo)");
    const char* with_system = R"([{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}])";
    EXPECT_EQ(chat_text(first_row(fmt::format(R"({{"system": "s", "messages": {}}})", with_system))),
              "(system: s) (user: Hi)");
    expect_refused(
        fmt::format(R"({{"system": "t", "messages": {}}})", with_system),
        R"(rows.jsonl:1: key 'system': found "t" beside messages that begin with another system prompt, "s")");
    const Row row = first_row(R"({"system": "s", "prompt": [{"role": "user", "content": "q"}],
                                  "completion": [{"role": "assistant", "content": "a"}]})");
    EXPECT_EQ(chat_text(row), "(system: s) (user: q) | (assistant: a)");
    EXPECT_EQ(chat_text(first_row(R"({"system": "s", "prompt": "q", "completion": "a"})")),
              "(system: s) (user: q) (assistant: a)");
    EXPECT_EQ(type_, "alpaca");
}

TEST_F(ChatRows, TheContextOfAnInstructionIsItsInput) {
    EXPECT_EQ(chat_text(first_row(R"({"instruction": "Translate", "context": "Bonjour", "output": "Hello"})")),
              "(user: Translate\nBonjour) (assistant: Hello)");
    EXPECT_EQ(chat_text(first_row(R"({"instruction": "i", "context": "", "response": "r"})")),
              "(user: i) (assistant: r)");
    expect_refused(R"({"instruction": "i", "context": "c", "input": "x", "output": "o"})",
                   "key 'context': found beside 'input'; expected one of them");
}

TEST_F(ChatRows, RefusesWhatItCannotRead) {
    const struct {
        const char *message, *part;
    } cases[] = {
        {R"({"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0}]})",
         "messages[0]: key 'train_detail' may say what is learned, and is not supported"},
        {R"({"role": "assistant", "content": "a", "loss_mask": [1]})", "key 'loss_mask' may say what is learned"},
        {R"({"role": "assistant", "content": "a", "train": true, "weight": 0})",
         "key 'train': true contradicts key 'weight' with 0; expected one of them"},
        {R"({"role": "assistant", "content": "a", "masked": true, "weight": 0.5})",
         "messages[0]: key 'masked': true contradicts key 'weight' with 0.5"},
        {R"({"role": "assistant", "content": "a", "weight": 0.5, "loss_weight": 1})",
         "key 'loss_weight': 1 contradicts key 'weight' with 0.5"},
        {R"({"role": "assistant", "content": "a", "loss": 0.5})",
         "key 'loss': expected true, false, 1 or 0, found 0.5"},
        {R"({"role": "assistant", "content": "a", "weight": "2"})", "key 'weight': expected a weight, 0 or a number"},
        {R"({"role": "assistant", "content": [{"type": "text", "text": "a", "weight": 0}]})",
         "content[0]: unknown key 'weight' of a text part"},
        {R"({"role": "assistant", "content": [{"type": "image"}]})", R"(expected a text part)"},
        {R"({"role": "assistant", "content": null, "reasoning_content": "r"})", "key 'content' is null"},
        {R"({"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {}}}]})",
         R"(tool_calls[0]: expected a call such as {"name": ..., "arguments": {...}}, found {"arguments":{}})"},
        {R"({"role": "assistant", "content": "", "tool_calls": "[{"})", "key 'tool_calls': column 2: invalid JSON"},
        {R"({"role": "assistant", "content": "", "tool_calls": 3})",
         "expected a list or an object, or a string of JSON"},
        {R"({"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{x"}]})",
         "tool_calls[0]: arguments: column 2: invalid JSON"},
        {R"({"role": "assistant", "tool_calls": [{"name": "f"}], "function_call": {"name": "f"}})",
         "key 'function_call': found beside 'tool_calls'"},
        {R"({"role": "tool_call", "content": "call f"})", "key 'content' of a tool call: column 1: invalid JSON"},
        {R"({"role": "assistant", "content": "a", "confidence": NaN})",
         "key 'confidence': expected a finite number, found NaN"},
    };
    for (const auto& [message, part] : cases) expect_refused(fmt::format(R"({{"messages": [{}]}})", message), part);
    expect_refused(R"({"conversations": [{"from": "gpt", "value": "v", "content": "c"}]})",
                   "conversations[0]: key 'content' beside 'value'; expected one of them");
    expect_refused(R"({"messages": [{"role": "user", "content": "q"}], "tools": {"name": "f"}})",
                   "rows.jsonl:1: key 'tools': expected a list, or a string of JSON that holds one, found object");
    expect_refused(R"({"messages": [{"role": "user", "content": "q"}], "enable_thinking": true,
                       "chat_template_kwargs": {"enable_thinking": false}})",
                   "key 'chat_template_kwargs': its value of enable_thinking contradicts the row's");
}

}  // namespace
}  // namespace colonnade
