#pragma once
// Chat templates: how a model family writes a conversation as text. The templates are built in, so that the assistant's
// part is known token by token. S, U and A are the contents of a system, user and assistant message, ⏎ a newline:
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

#include <string>
#include <vector>

#include "data/rows/rows.h"

namespace colonnade {

class Tokenizer;

/// A part of a rendered chat.
struct Segment {
    enum class Kind {
        text,    ///< tokenised as text
        marker,  ///< the piece named `text`; tokenised as text if the tokenizer has no such piece
        bos,     ///< the piece named `text`; if there is none, the tokenizer's BOS; else nothing
        eos,     ///< the tokenizer's end token
    };
    enum class Part {
        scaffold,  ///< text of the template around a message
        content,   ///< content of a message
        end,       ///< end token of a message
    };
    Kind kind = Kind::text;
    Part part = Part::scaffold;
    std::string text;
    size_t message = 0;  ///< index of its message
};

std::vector<std::string> chat_template_names();

/// Renders a chat. `generation_prompt`: end with the text that precedes an assistant's answer. Throws Exit::config for
/// an unknown template, Exit::data with "where: ..." for messages that the template cannot render.
std::vector<Segment> render_chat(const std::string& chat_template, const std::vector<Message>& messages,
                                 bool generation_prompt, const std::string& where);

/// Returns the same template in Jinja, for the tokenizer_config.json of an export with this tokenizer
/// (tests/golden/check_chat_templates.py compares the two).
std::string chat_template_jinja(const std::string& chat_template, const Tokenizer& tokenizer);

}  // namespace colonnade
