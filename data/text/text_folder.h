#pragma once
// TextFolder: what a model's folder says about text. Read are tokenizer.json or tokenizer.model, tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, chat_template.jinja, chat_templates/*.jinja, generation_config.json and
// config.json (eos_token_id).
//
// tokenizer.json decides if a folder holds it beside tokenizer.model, as in transformers. The pipeline is that of the
// file: what the `tokenizers` package does with it. Tokens that tokenizer_config.json adds are added; bos, eos, pad and
// unk are those that it names.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/text/chat_template.h"
#include "data/text/sentencepiece_export.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// What a run adds to the tokenizer of a folder.
struct TokenAdditions {
    /// Tokens by role: bos_token, eos_token, pad_token, unk_token. They replace those of the folder.
    std::map<std::string, std::string> roles{};
    std::vector<std::string> special{}, plain{};  ///< plain ones are kept when special tokens are skipped in decoding
    bool empty() const { return roles.empty() && special.empty() && plain.empty(); }
};
/// The same as keys of a tokenizer_config.json: the roles, and added_tokens_decoder with those tokens that the tokenizer
/// lacks. They get the ids from vocab_size() on: roles first, then special tokens, then plain ones.
Json settings_of(const TokenAdditions& additions, const Tokenizer& tokenizer);
/// Adds such settings to those of a tokenizer_config.json, or its tokens to a tokenizer.json.
void add_settings(Json& config, const Json& settings);
void add_tokens(Json& tokenizer_json, const Json& settings);

struct TextFolder {
    struct Template {
        std::string name;    ///< "default", or the name in a list, such as "tool_use"
        std::string source;  ///< Jinja
        std::string file;    ///< the file that holds it
    };
    std::shared_ptr<const Tokenizer> tokenizer;
    std::vector<Template> templates;   ///< the default one first
    std::vector<int32_t> end_ids;      ///< eos_token_id of generation_config.json, else of config.json
    std::vector<std::string> notices;  ///< one line each, for the user
    std::vector<std::string> added;    ///< the tokens that the folder lacks, in the order of their ids
};

/// `path`: a folder, a tokenizer.json, a SentencePiece model or a GGUF file. Throws Exit::data with the file and what is
/// wrong. `additions`: tokens and roles that the tokenizer gets.
TextFolder read_text_folder(const std::string& path, const TokenAdditions& additions = {});
/// Whether `path` is a file, or a folder with a tokenizer.json or tokenizer.model.
bool has_tokenizer(const std::string& path);

/// A tokenizer.json for the SentencePiece model `bytes` with the added tokens of its folder, or the obstacle.
ExportedTokenizer tokenizer_json_of_folder(const std::string& folder, const std::string& bytes);

/// Throws Exit::data if one of a folder's files that an export copies is a link that leads out of the folder, or is not
/// the JSON object that it has to be. A run checks this before it starts.
void check_exported_files(const std::string& folder);

/// The tokenizer files of a model that training writes.
struct TextExport {
    std::string source;                 ///< as for read_text_folder; empty: the folder gets none
    std::string folder;                 ///< may be the source
    const Tokenizer* tokenizer;         ///< what training encoded with; null: the files are copied as they are
    const ChatTemplate* chat_template;  ///< replaces that of the source; null: the source's stays
    TokenAdditions additions{};         ///< what the tokenizer has beside the tokens of the source
};
/// Copies the files of the source. What it lacks is written, so that transformers encodes as training did: a
/// tokenizer.json for a SentencePiece model or a GGUF file, and a tokenizer_config.json. Returns notices.
std::vector<std::string> export_text(const TextExport& request);

}  // namespace colonnade
