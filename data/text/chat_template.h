#pragma once
// Chat templates: how a model writes a conversation as text. A template is Jinja (data/text/jinja/template.h): the
// model's own, a text or file that the user gives, or one of the built-in ones. S, U and A are the contents of a system,
// user and assistant message, ⏎ a newline:
//
//   plain    <s>UA</s>: contents joined unchanged, an end token after the assistant's
//   chatml   <|im_start|>role⏎content<|im_end|>⏎ for each message
//   llama2   <s>[INST] <<SYS>>⏎S⏎<</SYS>>⏎⏎U [/INST] A </s>, later turns <s>[INST] U [/INST] A </s>
//   llama3   <|begin_of_text|>, then <|start_header_id|>role<|end_header_id|>⏎⏎content<|eot_id|>; role tool is ipython
//   mistral  <s> [INST] S⏎⏎U [/INST] A</s> [INST] U [/INST] A</s>, as in 7B v0.1 and v0.2
//   zephyr   <|role|>⏎content</s>⏎ for each message, with <|role|> as plain text
//   gemma    <bos><start_of_turn>user⏎S⏎⏎U<end_of_turn>⏎<start_of_turn>model⏎A<end_of_turn>⏎
//
// llama2, llama3 and gemma strip white space around contents, like those families' own templates. llama2, mistral and
// gemma need alternating user and assistant messages after at most one system message; the others accept any order.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "data/text/jinja/template.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// A part of a rendered chat: the bytes up to `end`, from the end of the part before it.
struct ChatPart {
    enum class Kind {
        scaffold,  ///< the template's text around messages
        content,   ///< content of a message; of an assistant's turn, the template's text within it too
        thinking,  ///< reasoning of an assistant's turn, with its markup; its content may spell it as <think>...</think>
        tool_calls,  ///< tool calls of an assistant's turn, with their markup
        end,         ///< the token that ends a turn
    };
    static constexpr size_t no_message = jinja::Origin::kNoMessage;
    size_t end = 0;
    Kind kind = Kind::scaffold;
    size_t message = no_message;  ///< index of the message that the part belongs to
    bool from_row = false;        ///< text of the row: what looks like a special token there is text
    bool operator==(const ChatPart&) const = default;
};
struct RenderedChat {
    std::string text;
    std::vector<ChatPart> parts;
};

struct Chat {
    std::span<const Message> messages;
    const Json& variables;  ///< of the row: tools, documents, ...; null: none
    bool generation_prompt = false;
    bool unchecked = false;  ///< the template may leave out parts of it, and a prompt may follow an answer
};

struct ChatTemplateSettings {
    Json variables = Json::object();                         ///< for every chat, such as enable_thinking
    jinja::Clock clock{.year = 2025, .month = 1, .day = 1};  ///< the date that templates see, the same every day
    bool of_model = false;                                   ///< the template came with the tokenizer
};

class ChatTemplate {
  public:
    using Settings = ChatTemplateSettings;
    /// `name`: for messages. `with_tools`: renders chats with tools; empty: `source` does. Throws Exit::config for a
    /// text that is no template, with its line and column.
    ChatTemplate(std::string name, const std::string& source, const std::string& with_tools, Settings settings);
    /// Throws Exit::config for an unknown name.
    static std::shared_ptr<const ChatTemplate> built_in(const std::string& name, Settings settings = {});

    const std::string& name() const { return name_; }
    const std::string& source() const { return source_; }
    const Settings& settings() const { return settings_; }
    bool is_built_in() const { return built_in_; }
    bool is_plain() const;  ///< the built-in plain: bare text behind BOS, which starts as any document does
    /// Whether the template writes role names such as <|user|> as text on purpose (zephyr).
    bool spells_roles() const;
    bool is_of_model() const { return settings_.of_model; }
    /// The family's BOS piece, which a built-in template prefers to the tokenizer's BOS.
    const std::string& own_bos() const { return own_bos_; }
    /// Everything that decides the text of a chat, for the key of a token store.
    std::string identity() const;

    /// Throws Exit::data with "where: ..." for a chat that the template cannot render.
    jinja::Rendered render(const Json& variables, bool tools, const std::string& where) const;
    bool has_generation() const { return template_.has_generation(); }
    /// Whether a message is written the same whatever follows it: jinja::Template::reads_forward().
    bool reads_forward() const { return template_.reads_forward() && (!with_tools_ || with_tools_->reads_forward()); }

  private:
    std::string name_, source_, with_tools_source_, own_bos_;
    jinja::Template template_;
    std::optional<jinja::Template> with_tools_;
    Settings settings_;
    bool built_in_ = false;
};

std::vector<std::string> chat_template_names();  ///< of the built-in ones

/// The template as Jinja for the files of an export with this tokenizer.
std::string exported_source(const ChatTemplate& chat_template, const Tokenizer& tokenizer);

}  // namespace colonnade
