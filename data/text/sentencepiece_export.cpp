#include "data/text/sentencepiece_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>

#include "data/text/sentencepiece_check.h"
#include "data/text/unicode.h"
#include "sentencepiece_model.pb.h"

namespace colonnade {
namespace {

constexpr const char* space_mark = "\xE2\x96\x81";

using Ids = std::unordered_map<std::string_view, int32_t>;

struct Merge {
    float score;
    int32_t left, right;
    size_t cut;  // bytes of the left part
    int32_t product;
};

// All ways to cut each normal piece into two.
std::vector<Merge> merges_of(const SentencePieces& model, const Ids& normal) {
    std::vector<Merge> merges;
    for (int32_t id = 0; id < std::ssize(model.pieces); ++id) {
        const auto& [text, score, type] = model.pieces[static_cast<size_t>(id)];
        if (type != PieceType::normal) continue;
        const std::string_view whole = text;
        for (size_t cut = character_at(text.data()).bytes; cut < whole.size();
             cut += character_at(text.data() + cut).bytes) {
            const auto left = normal.find(whole.substr(0, cut)), right = normal.find(whole.substr(cut));
            if (left != normal.end() && right != normal.end())
                merges.push_back({score, left->second, right->second, cut, id});
        }
    }
    // Of products with one score, which are runs of a character (obstacle_of), the longest comes first. SentencePiece
    // takes the leftmost pair, so a run grows from its left end; so it does with these ranks: a pair that makes the
    // piece at the left longer has a longer product than any pair behind it.
    const auto length = [&](const Merge& m) { return model.pieces[static_cast<size_t>(m.product)].text.size(); };
    std::ranges::sort(merges, [&](const Merge& a, const Merge& b) {
        return std::tuple(-a.score, length(b), a.product, a.left, a.right) <
               std::tuple(-b.score, length(a), b.product, b.left, b.right);
    });
    return merges;
}

// "    " or "=="
bool is_run(std::string_view text) {
    const size_t first = character_at(text.data()).bytes;
    for (size_t at = first; at < text.size(); at += first)
        if (text.substr(at, first) != text.substr(0, first)) return false;
    return true;
}

// Of two products with one score SentencePiece merges the one that is first in the text; a list of merges can say so
// for runs of one character alone. Llama 2 and Mistral have such runs of spaces.
std::string obstacle_of(const SentencePieces& model, const Ids& normal, const std::vector<Merge>& merges) {
    int unknown = 0;
    for (const auto& [text, score, type] : model.pieces) {
        const bool one_character = character_at(text.data()).bytes == text.size();
        if (type == PieceType::unused)
            return fmt::format("piece '{}' is unused, which tokenizer.json cannot say", text);
        if (one_character && type != PieceType::normal && type != PieceType::user_defined)
            return fmt::format("the character '{}' is a control piece", text);
        unknown += type == PieceType::unknown;
        if (type != PieceType::normal) continue;
        for (size_t at = 0; at < text.size(); at += character_at(text.data() + at).bytes)
            if (!normal.contains(std::string_view(text).substr(at, character_at(text.data() + at).bytes)))
                return fmt::format("piece '{}' has a character that is no piece", text);
    }
    if (unknown != 1) return fmt::format("it has {} unknown pieces", unknown);
    for (size_t i = 1; i < merges.size(); ++i) {
        if (merges[i].score != merges[i - 1].score || merges[i].product == merges[i - 1].product) continue;
        const std::string &first = model.pieces[static_cast<size_t>(merges[i - 1].product)].text,
                          &second = model.pieces[static_cast<size_t>(merges[i].product)].text;
        if (!is_run(first) || !is_run(second))
            return fmt::format("pieces '{}' and '{}' have the same score {}", first, second, merges[i].score);
    }
    return {};
}

Json model_json(const SentencePieces& model, const std::vector<Merge>& merges) {
    Json vocabulary = Json::object(), pairs = Json::array(), unknown;
    bool bytes = false;
    for (int32_t id = 0; id < std::ssize(model.pieces); ++id) {
        const auto& [text, score, type] = model.pieces[static_cast<size_t>(id)];
        append_new(vocabulary, text, static_cast<uint32_t>(id));
        if (type == PieceType::unknown) unknown = text;
        bytes = bytes || type == PieceType::byte;
    }
    for (const Merge& m : merges) {
        const std::string& text = model.pieces[static_cast<size_t>(m.product)].text;
        pairs.push_back(Json::array({text.substr(0, m.cut), text.substr(m.cut)}));
    }
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", bytes},
            {"ignore_merges", false},
            {"vocab", std::move(vocabulary)},
            {"merges", std::move(pairs)}};
}

// User-defined pieces with spaces are found in the text in which U+2581 stands for them.
Json added_tokens_json(const SentencePieces& model) {
    const auto has_space = [](const SentencePieces::Piece& p) {
        return p.type == PieceType::user_defined &&
               (p.text.find(' ') != p.text.npos || p.text.find(space_mark) != p.text.npos);
    };
    const bool normalized = std::ranges::any_of(model.pieces, has_space);
    Json added = Json::array();
    for (int32_t id = 0; id < std::ssize(model.pieces); ++id) {
        const auto& [text, score, type] = model.pieces[static_cast<size_t>(id)];
        if (type == PieceType::unknown || type == PieceType::control) {
            added.push_back(added_token_json(text, id, true));
        } else if (type == PieceType::user_defined) {
            added.push_back(added_token_json(text, id, looks_like_control(text)));
            added.back()["normalized"] = normalized;
        }
    }
    return added;
}

Json metaspace(const char* replacement, const char* scheme) {
    return {{"type", "Metaspace"}, {"replacement", replacement}, {"prepend_scheme", scheme}, {"split", false}};
}

// Metaspace adds no prefix to a text that begins with its own character, SentencePiece always does. The normalizer
// leaves no plain spaces, so a Metaspace step whose character is the space itself always adds one, and only at the
// start of a document; the second step makes it U+2581.
Json pre_tokenizer_json(bool dummy_prefix) {
    if (!dummy_prefix) return nullptr;
    return {{"type", "Sequence"}, {"pretokenizers", {metaspace(" ", "first"), metaspace(space_mark, "never")}}};
}

Json decoder_json(bool dummy_prefix) {
    Json steps = Json::array({Json{{"type", "Replace"}, {"pattern", {{"String", space_mark}}}, {"content", " "}},
                              Json::object({{"type", "ByteFallback"}}), Json::object({{"type", "Fuse"}})});
    if (dummy_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1U}, {"stop", 0U}});
    return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

std::string obstacle_of(const spm::Model& model) {
    const spm::NormalizerSpec& normalizer = model.normalizer_spec();
    constexpr int bpe = 2;
    if (model.trainer_spec().model_type() != bpe) return "it is not a BPE model";
    if (!normalizer.precompiled_charsmap().empty()) return fmt::format("it normalises text ({})", normalizer.name());
    if (normalizer.remove_extra_whitespaces()) return "it removes spaces (remove_extra_whitespaces)";
    if (!normalizer.escape_whitespaces()) return "it does not escape spaces";
    if (model.trainer_spec().treat_whitespace_as_suffix()) return "it puts spaces behind words";
    return {};
}

}  // namespace

void append_new(Json& object, std::string key, Json value) {
    object.get_ref<Json::object_t&>().std::vector<std::pair<const std::string, Json>>::emplace_back(std::move(key),
                                                                                                    std::move(value));
}

Json leading_token_json(const std::string& piece, int32_t id) {
    const auto token = [&](int type) { return Json{{"SpecialToken", {{"id", piece}, {"type_id", type}}}}; };
    const auto text = [](const char* name, int type) { return Json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
    return {{"type", "TemplateProcessing"},
            {"single", Json::array({token(0), text("A", 0)})},
            {"pair", Json::array({token(0), text("A", 0), token(1), text("B", 1)})},
            {"special_tokens",
             {{piece,
               {{"id", piece}, {"ids", Json::array({static_cast<uint32_t>(id)})}, {"tokens", Json::array({piece})}}}}}};
}

Json added_token_json(const std::string& text, int32_t id, bool special) {
    return {{"id", static_cast<uint32_t>(id)},
            {"content", text},
            {"single_word", false},
            {"lstrip", false},
            {"rstrip", false},
            {"normalized", false},
            {"special", special}};
}

ExportedTokenizer tokenizer_json(const SentencePieces& model) {
    Ids normal;
    for (int32_t id = 0; id < std::ssize(model.pieces); ++id) {
        const auto& piece = model.pieces[static_cast<size_t>(id)];
        if (piece.type == PieceType::normal) normal.emplace(piece.text, id);
    }
    // A damaged piece would be cut at places outside it.
    for (const auto& piece : model.pieces)
        if (piece.text.empty() || well_formed_prefix(piece.text) != piece.text.size())
            return {nullptr, fmt::format("a piece is {}", piece.text.empty() ? "empty" : "not valid UTF-8")};
    const std::vector<Merge> merges = merges_of(model, normal);
    if (std::string obstacle = obstacle_of(model, normal, merges); !obstacle.empty()) return {nullptr, obstacle};
    Json post;
    if (model.bos) post = leading_token_json(model.pieces[static_cast<size_t>(*model.bos)].text, *model.bos);
    Json json = {{"version", "1.0"},
                 {"truncation", nullptr},
                 {"padding", nullptr},
                 {"added_tokens", added_tokens_json(model)},
                 {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space_mark}}},
                 {"pre_tokenizer", pre_tokenizer_json(model.dummy_prefix)},
                 {"post_processor", std::move(post)},
                 {"decoder", decoder_json(model.dummy_prefix)},
                 {"model", model_json(model, merges)}};
    return {std::move(json), {}};
}

ExportedTokenizer tokenizer_json_of_model(const std::string& bytes) {
    spm::Model model;
    if (!model.ParseFromString(bytes)) return {nullptr, "it is damaged"};
    if (std::string obstacle = obstacle_of(model); !obstacle.empty()) return {nullptr, obstacle};
    SentencePieces pieces{.dummy_prefix = model.normalizer_spec().add_dummy_prefix()};
    for (const spm::Piece& p : model.pieces())
        pieces.pieces.push_back({p.piece(), p.score(), static_cast<PieceType>(p.type())});
    const int32_t bos = model.trainer_spec().bos_id();
    if (bos >= 0 && bos < std::ssize(pieces.pieces)) pieces.bos = bos;
    return tokenizer_json(pieces);
}

}  // namespace colonnade
