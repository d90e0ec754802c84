#include "data/text/hugging_face_tokenizer.h"

#include <algorithm>

#include "data/text/byte_pair_model.h"
#include "data/text/split_pattern.h"
#include "data/text/unicode.h"
#include "data/text/unigram_model.h"
#include "data/text/word_models.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

const Json& section(const Json& json, const char* key) {
    static const Json nothing;
    const auto found = json.find(key);
    return found == json.end() ? nothing : *found;
}

const Json& checked(const Json& json, const std::string& where) {
    if (!json.is_object() || !json.contains("model"))
        fail(Exit::data, "{}: not a tokenizer.json: it has no model", where);
    if (const Json& version = section(json, "version"); version != "1.0")
        fail(Exit::data, "{}: version {:.40}: expected \"1.0\"", where, version.dump());
    const Json& model = json["model"];
    if (!model.is_object()) fail(Exit::data, "{}: model: expected an object", where);
    return json;
}

/// The type of a model. Old files lack it; their fields show it.
std::string model_kind(const Json& model, const std::string& where) {
    if (model.contains("type")) return json_text(model, "type", where + ": model");
    if (model.contains("merges")) return "BPE";
    if (section(model, "vocab").is_array()) return "Unigram";
    return model.contains("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

/// A model over bytes is the fastest. Text is spelled in byte characters only for files that need them.
bool works_on_bytes(const Json& model, const Normalizer& normalizer, PreTokenizer& pre_tokenizer) {
    const auto is_set = [&](const char* key) {
        const Json& value = section(model, key);
        return value == true || (value.is_string() && value != "");
    };
    const bool plain =
        !is_set("byte_fallback") && !is_set("continuing_subword_prefix") && !is_set("end_of_word_suffix");
    return plain && !normalizer.spells_bytes() && pre_tokenizer.leave_bytes();
}

}  // namespace

std::shared_ptr<const HuggingFaceTokenizer> HuggingFaceTokenizer::load(const std::string& path) {
    return std::make_shared<const HuggingFaceTokenizer>(read_json_file(path, {.bytes = limits::tokenizer_json_bytes}),
                                                        path);
}

HuggingFaceTokenizer::HuggingFaceTokenizer(const Json& json, const std::string& where)
    : normalizer_(section(checked(json, where), "normalizer"), where),
      pre_tokenizer_(section(json, "pre_tokenizer"), where),
      decoder_(section(json, "decoder"), where) {
    path_ = where;
    content_hash_ = sha256(json.dump());
    read_model(json["model"]);
    read_vocabulary();
    if (const Json& added = section(json, "added_tokens"); !added.is_null()) read_added_tokens(added);
    if (const Json& post = section(json, "post_processor"); !post.is_null()) read_post_processor(post, 0);
}

void HuggingFaceTokenizer::read_model(const Json& json) {
    const std::string kind = model_kind(json, path_);
    if (kind == "BPE") {
        const bool bytes = works_on_bytes(json, normalizer_, pre_tokenizer_);
        using Alphabet = BytePairModel::Alphabet;
        model_ = std::make_unique<BytePairModel>(json, bytes ? Alphabet::bytes : Alphabet::characters, path_);
    } else if (kind == "Unigram") {
        model_ = std::make_unique<UnigramModel>(json, path_);
    } else if (kind == "WordPiece") {
        model_ = std::make_unique<WordPieceModel>(json, path_);
    } else if (kind == "WordLevel") {
        model_ = std::make_unique<WordLevelModel>(json, path_);
    } else {
        fail(Exit::data, "{}: model: {:.100} is not supported", path_, kind);
    }
}

void HuggingFaceTokenizer::read_vocabulary() {
    int32_t largest = -1;
    for (const auto& [piece, id] : model_->vocabulary()) largest = std::max(largest, id);
    pieces_.assign(static_cast<size_t>(largest) + 1, nullptr);
    added_by_id_.assign(pieces_.size(), nullptr);
    for (const auto& [piece, id] : model_->vocabulary()) pieces_[id] = &piece;
}

void HuggingFaceTokenizer::read_added_tokens(const Json& json) {
    if (!json.is_array()) fail(Exit::data, "{}: added_tokens: expected an array", path_);
    for (const Json& token : json) add_token(token);
    // Special tokens come first: where a special and another token have one spelling, the special one is found.
    for (const bool special : {true, false})
        for (const auto& token : added_)
            if (token->special == special) (token->normalized ? normalized_ : raw_).add(token->decoded, token.get());
    normalizes_special_ = std::any_of(added_.begin(), added_.end(),
                                      [](const auto& token) { return token->special && token->normalized; });
}

/// The package takes the id from the vocabulary or counts on, whatever the file says. A file that disagrees is refused.
/// In a vocabulary with holes the next id may belong to a piece already; the added token then hides it when decoding.
void HuggingFaceTokenizer::add_token(const Json& json) {
    const std::string where = path_ + ": added_tokens";
    if (!json.is_object()) fail(Exit::data, "{}: expected an object, found {:.100}", where, json.dump());
    auto token = std::make_unique<AddedToken>();
    token->content = json_text(json, "content", where);
    if (token->content.empty()) return;
    const std::string here = fmt::format("{}: '{:.100}'", where, token->content);
    token->special = json_flag(json, "special", false, here);
    token->normalized = json_flag(json, "normalized", !token->special, here);
    token->single_word = json_flag(json, "single_word", false, here);
    token->left_strip = json_flag(json, "lstrip", false, here);
    token->right_strip = json_flag(json, "rstrip", false, here);
    token->decoded = token->normalized ? normalizer_.apply(token->content) : token->content;
    const auto known = piece_id(token->content);
    size_t next = model_->vocabulary().size();
    for (const auto& other : added_) next = std::max(next, static_cast<size_t>(other->id) + 1);
    const Json& id = section(json, "id");
    const size_t expected = known ? static_cast<size_t>(*known) : next;
    if (!id.is_number_integer() || id != expected)
        fail(Exit::data, "{}: id {:.40}: the tokenizers package would use {}", here, id.dump(), expected);
    token->id = static_cast<int32_t>(expected);
    if (expected >= pieces_.size()) pieces_.resize(expected + 1), added_by_id_.resize(expected + 1);
    pieces_[expected] = &token->decoded;
    added_by_id_[expected] = token.get();
    added_.push_back(std::move(token));
}

void HuggingFaceTokenizer::read_post_processor(const Json& json, int depth) {
    const std::string where = path_ + ": post_processor", kind = json_kind(json, where);
    const auto id_of = [&](const char* key) {
        const Json& pair = section(json, key);
        if (!pair.is_array() || pair.size() != 2 || !pair[1].is_number_unsigned() || pair[1] >= vocab_size())
            fail(Exit::data, "{}: {}: {}: expected a token and its id", where, kind, key);
        return pair[1].get<int32_t>();
    };
    if (kind == "Sequence") {
        for (const Json& part : json_sequence(json, "processors", depth, where)) read_post_processor(part, depth + 1);
    } else if (kind == "TemplateProcessing") {
        read_template(json);
    } else if (kind == "RobertaProcessing" || kind == "BertProcessing") {
        prefix_.insert(prefix_.begin(), id_of("cls"));
        suffix_.push_back(id_of("sep"));
    } else if (kind != "ByteLevel") {  // which changes offsets, not ids
        fail(Exit::data, "{}: {:.100} is not supported", where, kind);
    }
}

void HuggingFaceTokenizer::read_template(const Json& json) {
    const std::string where = path_ + ": post_processor: TemplateProcessing";
    const Json &parts = section(json, "single"), &tokens = section(json, "special_tokens");
    if (!parts.is_array()) fail(Exit::data, "{}: single: expected an array", where);
    std::vector<int32_t> before, behind;
    int sequences = 0;
    for (const Json& part : parts) {
        if (part.contains("Sequence")) {
            ++sequences;
            continue;
        }
        if (!part.contains("SpecialToken")) fail(Exit::data, "{}: single: {:.100} is unknown", where, part.dump());
        const std::string name = json_text(part["SpecialToken"], "id", where);
        const Json& ids = section(section(tokens, name.c_str()), "ids");
        if (!ids.is_array()) fail(Exit::data, "{}: special_tokens: '{:.100}' has no ids", where, name);
        for (const Json& id : ids) {
            if (!id.is_number_unsigned() || id >= vocab_size())
                fail(Exit::data, "{}: special_tokens: '{:.100}': no piece has id {:.40}", where, name, id.dump());
            (sequences == 0 ? before : behind).push_back(id.get<int32_t>());
        }
    }
    if (sequences != 1) fail(Exit::data, "{}: single: expected one Sequence, found {}", where, sequences);
    prefix_.insert(prefix_.begin(), before.begin(), before.end());
    suffix_.insert(suffix_.end(), behind.begin(), behind.end());
}

std::vector<int32_t> HuggingFaceTokenizer::encode_document(std::string_view text, TokenCache& cache,
                                                           PostProcess post) const {
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3 + 8);
    if (post == PostProcess::yes) ids = prefix_;
    std::string repaired;
    if (well_formed_prefix(text) != text.size()) text = repaired = replace_ill_formed(text);
    for (const SplitPart& part : split(text, {}).parts) {
        const TextStart start = part.bytes.begin == 0 ? TextStart::document : TextStart::behind_token;
        if (part.id >= 0)
            ids.push_back(part.id);
        else
            encode_between(text.substr(part.bytes.begin, part.bytes.size()), start, Spelled::token, ids, cache);
    }
    if (post == PostProcess::yes) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
    return ids;
}

bool HuggingFaceTokenizer::spells_normalized(std::string_view text) const {
    std::vector<TextPart> parts;
    normalized_.split(normalizer_.apply(text), {}, parts);
    return std::any_of(parts.begin(), parts.end(), [](const TextPart& p) { return p.token && p.token->special; });
}

/// Tokens that are found in normalized text have no place in `text`. A plain span that spells one is a part of its own.
SplitText HuggingFaceTokenizer::split(std::string_view text, std::span<const Span> plain) const {
    check_text_size(text.size());
    SplitText result;
    std::vector<TextPart> parts;
    result.spelled_special = raw_.split(text, plain, parts);
    std::vector<Span> kept_apart;
    for (const Span& span : plain)
        if (normalizes_special_ && spells_normalized(text.substr(span.begin, span.size()))) kept_apart.push_back(span);
    result.spelled_special |= !kept_apart.empty();
    for (const TextPart& part : parts) {
        if (part.token) {
            result.parts.push_back({{part.begin, part.end}, part.token->id});
            continue;
        }
        size_t begin = part.begin;
        const auto put = [&](size_t end, Spelled spelled) {
            if (begin < end) result.parts.push_back({{begin, end}, -1, spelled});
            begin = std::max(begin, end);
        };
        for (const Span& span : kept_apart) {
            put(std::min(span.begin, part.end), Spelled::token);
            put(std::min(span.end, part.end), Spelled::text);
        }
        put(part.end, Spelled::token);
    }
    return result;
}

void HuggingFaceTokenizer::encode_between(std::string_view text, TextStart start, Spelled spelled,
                                          std::vector<int32_t>& ids, TokenCache& cache) const {
    check_text_size(text.size());
    std::string repaired;
    if (well_formed_prefix(text) != text.size()) text = repaired = replace_ill_formed(text);
    encode_text(text, spelled, start, ids, cache.bpe_words);
}

void HuggingFaceTokenizer::encode_text(std::string_view text, Spelled spelled, TextStart start,
                                       std::vector<int32_t>& ids, BpeCache& cache) const {
    std::string normalized;
    if (!normalizer_.changes_nothing()) text = normalized = normalizer_.apply(text, start);
    check_text_size(text.size());
    std::vector<TextPart> parts;
    const Span whole{0, text.size()};
    normalized_.split(text, std::span(&whole, spelled == Spelled::text ? 1 : 0), parts);
    PiecesOfText pieces;
    for (const TextPart& part : parts) {
        if (part.token) {
            ids.push_back(part.token->id);
            continue;
        }
        pieces.text = text.substr(part.begin, part.end - part.begin);
        pieces.start = part.begin == 0 ? start : TextStart::behind_token;
        pre_tokenizer_.split(pieces);
        for (const Piece piece : pieces.pieces)
            model_->encode(pieces.text.substr(piece.begin, piece.end - piece.begin), ids, cache);
    }
}

std::string HuggingFaceTokenizer::decode(const std::vector<int32_t>& ids, SpecialTokens special) const {
    std::vector<std::string> pieces;
    pieces.reserve(ids.size());
    for (const int32_t id : ids) {
        const std::string text = piece(id);
        // The package does not skip a special token whose text normalization changes.
        const bool skipped = special == SpecialTokens::skip && is_special(id) && added_by_id_[id]->content == text;
        if (!skipped) pieces.push_back(text);
    }
    return decoder_.decode(std::move(pieces));
}

std::optional<int32_t> HuggingFaceTokenizer::piece_id(std::string_view piece) const {
    for (const auto& token : added_)
        if (token->content == piece) return token->id;
    const auto found = model_->vocabulary().find(piece);
    if (found == model_->vocabulary().end()) return std::nullopt;
    return found->second;
}

std::string HuggingFaceTokenizer::piece(int32_t id) const {
    if (id < 0 || id >= vocab_size() || !pieces_[id]) fail(Exit::data, "{}: no piece has id {}", path_, id);
    return *pieces_[id];
}

bool HuggingFaceTokenizer::is_special(int32_t id) const {
    return id >= 0 && id < vocab_size() && added_by_id_[id] && added_by_id_[id]->special;
}

}  // namespace colonnade
