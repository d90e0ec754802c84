#pragma once
// Chat templates: how the families of models write a conversation down. Built in, so that what the assistant says is
// known exactly, token by token. With S, U, A the contents of a system, user and assistant message and ⏎ a newline:
//
//   plain    <s>UA</s>: contents joined as they are, an end token after the assistant's
//   chatml   <|im_start|>role⏎content<|im_end|>⏎ for each message
//   llama2   <s>[INST] <<SYS>>⏎S⏎<</SYS>>⏎⏎U [/INST] A </s>, later turns <s>[INST] U [/INST] A </s>
//   llama3   <|begin_of_text|>, then <|start_header_id|>role<|end_header_id|>⏎⏎content<|eot_id|>; a tool is ipython
//   mistral  <s> [INST] S⏎⏎U [/INST] A</s> [INST] U [/INST] A</s>, as 7B v0.1 and v0.2 have it
//   zephyr   <|role|>⏎content</s>⏎ for each message, with <|role|> as plain text
//   gemma    <bos><start_of_turn>user⏎S⏎⏎U<end_of_turn>⏎<start_of_turn>model⏎A<end_of_turn>⏎
//
// llama2, llama3 and gemma strip white space around contents, as those families' own templates do. llama2, mistral and
// gemma need user and assistant in turn after at most one system message; the others take any order.

#include <string>
#include <vector>

#include "data/rows/rows.h"

namespace colonnade {

class Tokenizer;

/// A stretch of a rendered chat.
struct Segment {
    enum class Kind {
        text,    ///< goes through the tokenizer
        marker,  ///< one special piece, `text` its name; spelled out as text where the tokenizer has no such piece
        bos,     ///< the piece named `text`, else the tokenizer's BOS, else nothing
        eos,     ///< the tokenizer's end token
    };
    enum class Part {
        scaffold,  ///< what the template puts around
        content,   ///< what the message says
        end,       ///< the marker that ends the message
    };
    Kind kind = Kind::text;
    Part part = Part::scaffold;
    std::string text;
    size_t message = 0;  ///< index of the message that it belongs to
};

std::vector<std::string> chat_template_names();

/// `generation_prompt`: close with what comes before an answer of the assistant. Exit::config for an unknown template;
/// Exit::data with "where: ..." for messages that the template cannot render.
std::vector<Segment> render_chat(const std::string& chat_template, const std::vector<Message>& messages,
                                 bool generation_prompt, const std::string& where);

/// The same template in Jinja, for the tokenizer_config.json of an export with this tokenizer
/// (tests/golden/check_chat_templates.py compares the two).
std::string chat_template_jinja(const std::string& chat_template, const Tokenizer& tokenizer);

}  // namespace colonnade
