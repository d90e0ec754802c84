#pragma once
// TextFolder: what a model's folder says about text. Read are tokenizer.json or tokenizer.model, tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, chat_template.jinja, chat_templates/*.jinja, generation_config.json and
// config.json (eos_token_id).
//
// tokenizer.json decides if a folder holds it beside tokenizer.model, as in transformers. The pipeline is that of the
// file: what the `tokenizers` package does with it. Tokens that tokenizer_config.json adds are added; bos, eos, pad and
// unk are those that it names.

#include <memory>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"

namespace colonnade {

struct TextFolder {
    struct Template {
        std::string name;    ///< "default", or the name in a list, such as "tool_use"
        std::string source;  ///< Jinja
        std::string file;    ///< the file that holds it
    };
    std::shared_ptr<const Tokenizer> tokenizer;
    std::vector<Template> templates;    ///< the default one first
    std::vector<int32_t> end_ids;       ///< eos_token_id of generation_config.json, else of config.json
    std::vector<std::string> notices;   ///< one line each, for the user
};

/// `path`: a folder, a tokenizer.json or a SentencePiece model. Throws Exit::data with the file and what is wrong.
TextFolder read_text_folder(const std::string& path);
/// Whether `path` is a file, or a folder with a tokenizer.json or tokenizer.model.
bool has_tokenizer(const std::string& path);

}  // namespace colonnade
