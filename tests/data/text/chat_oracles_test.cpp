// Chats of real models' templates against Jinja2, and of TRL's training templates against transformers.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <regex>
#include <set>

#include "data/text/chat_renderer.h"
#include "tests/support/expect_error.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

/// What looks like a control token in a template.
std::vector<std::string> markers_of(const std::string& source) {
    static const std::regex marker(
        R"(<\|[^|<>\s'"]{1,40}\|?>|<｜[^<>\s'"]{1,60}｜>|\[/?[A-Z_]{3,30}\]|</?[a-z]+_of_[a-z]+>)");
    std::set<std::string> found;
    for (std::sregex_iterator i(source.begin(), source.end(), marker), end; i != end; ++i) found.insert(i->str());
    return {found.begin(), found.end()};
}

std::vector<Message> messages_of(const Json& context) {
    std::vector<Message> messages;
    for (const Json& json : context["messages"]) {
        Message message{json["role"], json.value("content", ""), {}, {}};
        for (const auto& [key, value] : json.items())
            if (key != "role" && key != "content") message.more[key] = value;
        messages.push_back(std::move(message));
    }
    return messages;
}

/// Rows have "" for an absent content, which some templates need.
bool lacks_content(const Json& context) {
    return std::ranges::any_of(context["messages"], [](const Json& m) { return !m.contains("content"); });
}

/// What a template may leave out, and a text of the oracle's chats that its render then lacks.
struct Loss {
    const char *refusal, *text;
    size_t count;  ///< refusals among the renders of the 137 templates
};
constexpr Loss kLosses[] = {
    {"the tools of the row", "The city, e.g.", 51},
    {"some of the tool_calls of message", R"("y\n")", 4},  // before "the tool_calls of message", which it contains
    {"the tool_calls of message", "Bern", 10},
    {"a part of the content of message", "", 38},  // before "the content of message", which it contains
    {"the content of message", "Let me look.", 9},
    {"the reasoning of message", "add more", 77},
    {"leaves out message", "", 136},
};

/// Whether the golden render lacks what the refusal says it lacks.
bool is_lost(const Loss& loss, const std::string& refusal, const Json& golden) {
    const std::string text = golden["text"];
    std::string lost = loss.text;
    if (lost == "Bern" && golden["chat"] == "tools") return true;  // Zürich is in the question, too
    if (std::string_view(loss.refusal) == "leaves out message") {
        const size_t message = std::stoul(refusal.substr(refusal.find(loss.refusal) + std::strlen(loss.refusal)));
        lost = golden["context"]["messages"][message]["content"];
        if (lost.size() < 4) return true;  // such a text is found anywhere
    }
    if (lost.empty()) lost = golden["chat"] == "think" ? "add more" : "<|eot_id|>";
    return text.find(lost) == text.npos;
}

void check_parts(const RenderedChat& chat, size_t messages) {
    size_t begin = 0;
    for (const ChatPart& part : chat.parts) {
        EXPECT_LT(begin, part.end);
        EXPECT_TRUE(part.kind == ChatPart::Kind::scaffold || part.message < messages);
        begin = part.end;
    }
    EXPECT_EQ(begin, chat.text.size());
}

TEST(ChatOracles, RealTemplatesWriteWhatJinja2Writes) {
    const char* folder = std::getenv("COLONNADE_CHAT_ORACLES");
    if (folder == nullptr) GTEST_SKIP() << "COLONNADE_CHAT_ORACLES names no folder";
    std::ifstream sources_file(std::string(folder) + "/templates.json");
    const Json sources = Json::parse(sources_file);
    std::map<std::string, ChatRenderer> renderers;
    for (const auto& [name, json] : sources.items()) {
        const std::string source = json;
        ChatTemplate::Settings settings{.clock = {2025, 3, 4, 5, 6, 7}};
        renderers.emplace(name, ChatRenderer(std::make_shared<const ChatTemplate>(name, source, "", settings),
                                             small_tokenizer({.special = markers_of(source)}), {}));
    }
    std::ifstream file(std::string(folder) + "/chat_golden.jsonl");
    size_t equal = 0, refused = 0, bad = 0;
    std::map<std::string, size_t> losses;
    for (std::string line; std::getline(file, line);) {
        const Json golden = Json::parse(line);
        const Json& context = golden["context"];
        if (golden["chat"] == "parts") continue;  // rows are read as one text
        const std::string name = golden["template"];
        SCOPED_TRACE(name + " " + golden["chat"].get<std::string>());
        Json variables = Json::object();
        for (const char* key : {"tools", "documents", "enable_thinking"})
            if (context.contains(key) && !context[key].is_null()) variables[key] = context[key];
        const std::vector<Message> messages = messages_of(context);
        try {
            const Chat chat{messages, variables, context["add_generation_prompt"]};
            const RenderedChat found = renderers.at(name).render(chat, "here");
            check_parts(found, messages.size());
            if (golden.contains("text") ? found.text == golden["text"].get_ref<const std::string&>()
                                        : lacks_content(context)) {
                ++equal;
                continue;
            }
            if (++bad <= 30)
                ADD_FAILURE() << "found    " << found.text << "\nexpected " << golden.value("text", "")
                              << golden.value("error", "");
        } catch (const Error& e) {
            const std::string refusal = e.what();
            const auto loss =
                std::ranges::find_if(kLosses, [&](const Loss& l) { return refusal.find(l.refusal) != refusal.npos; });
            if (golden.contains("error"))
                ++refused;
            else if (loss == std::end(kLosses) || !is_lost(*loss, refusal, golden))
                ADD_FAILURE() << refusal << "\nbut Jinja2 writes " << golden["text"];
            else
                ++losses[loss->refusal];
        }
    }
    std::printf("%zu equal, %zu refused by both, %zu differ\n", equal, refused, bad);
    EXPECT_EQ(bad, 0u);
    for (const Loss& loss : kLosses) EXPECT_EQ(losses[loss.refusal], loss.count) << loss.refusal;
}

}  // namespace
}  // namespace colonnade
