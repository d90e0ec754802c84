#pragma once
// ChatRenderer: renders chats with a template for a tokenizer, and knows which bytes an assistant's turn consists of.
//
// A turn begins behind the text that asks for an answer (the generation prompt), or, for a template without one, with
// the template's first byte for that message. It ends with the nearest end token that the template writes behind it: one
// that follows an answer or a tool call in a short chat, the tokenizer's EOS, or one of the model's eos_token_id. A
// template with {% generation %} says itself what an answer is.

#include "data/text/chat_template.h"

namespace colonnade {

class ChatRenderer {
  public:
    /// `end_ids`: further tokens that end a turn.
    ChatRenderer(std::shared_ptr<const ChatTemplate> chat_template, std::shared_ptr<const Tokenizer> tokenizer,
                 const std::vector<int32_t>& end_ids);

    /// Throws Exit::data with "where: ..." for a chat that the template cannot render, or would render without a part of
    /// it: a message, tools, documents, tool calls or reasoning. Reasoning of earlier answers than the last may be left
    /// out by templates that write reasoning at all. Chat::unchecked allows the template to leave out anything.
    RenderedChat render(const Chat& chat, const std::string& where) const;

    const ChatTemplate& chat_template() const { return *template_; }
    /// The token that ends an assistant's turn; nothing if the template writes none.
    std::optional<int32_t> end_token() const { return end_token_; }
    /// Texts like <|im_end|> that the template writes and the tokenizer does not know as one token.
    const std::vector<std::string>& spelled_out() const { return spelled_out_; }

  private:
    Json variables_of(const Chat& chat) const;
    jinja::Rendered render_probe(const std::vector<Message>& messages, bool generation_prompt) const;
    std::optional<int32_t> end_behind(const jinja::Rendered& rendered, size_t byte) const;
    void probe();
    void probe_reasoning();
    void find_end_of_calls(const jinja::Rendered& rendered);
    void find_spelled_out(const std::string& text);

    std::shared_ptr<const ChatTemplate> template_;
    std::shared_ptr<const Tokenizer> tokenizer_;
    jinja::TurnMarks marks_;
    std::optional<int32_t> end_token_;
    bool writes_reasoning_ = false;  ///< of some answers
    std::vector<std::string> spelled_out_;
};

}  // namespace colonnade
