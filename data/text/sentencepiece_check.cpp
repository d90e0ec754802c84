#include "data/text/sentencepiece_check.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "data/text/charsmap.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/limits.h"
#include "sentencepiece_model.pb.h"

namespace colonnade {
namespace {

constexpr int unknown_piece = 2, control_piece = 3, user_defined_piece = 4, unused_piece = 5;
constexpr int bpe = 2;
constexpr int most_pieces = limits::sentencepiece_pieces;
constexpr size_t longest_piece = limits::token_bytes;

/// Whether the first line is "<base64> <rank>": a tiktoken vocabulary, sometimes stored as tokenizer.model.
bool is_tiktoken_list(std::string_view bytes) {
    const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), size_t{4096}));
    const size_t space = line.find(' ');
    const auto is_base64 = [](unsigned char c) { return std::isalnum(c) || c == '+' || c == '/' || c == '='; };
    const auto is_digit = [](unsigned char c) { return std::isdigit(c); };
    return space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
           std::all_of(line.begin(), line.begin() + static_cast<std::ptrdiff_t>(space), is_base64) &&
           std::all_of(line.begin() + static_cast<std::ptrdiff_t>(space) + 1, line.end(), is_digit);
}

/// Throws for a file that is not a model; recognises the files that are often found under that name.
[[noreturn]] void refuse(std::string_view bytes, const std::string& path) {
    refuse_stand_in(path, bytes);
    std::string_view found = "another format, or a truncated model";
    const size_t start = bytes.find_first_not_of(" \t\r\n");
    if (start == std::string_view::npos)
        found = "an empty file";
    else if (bytes[start] == '{')
        found = "JSON: a tokenizer.json is read under that name";
    else if (is_tiktoken_list(bytes))
        found =
            "a tiktoken vocabulary, as Llama 3 ships it: its folder for transformers has a tokenizer.json, or use "
            "pre-tokenised rows";
    fail(Exit::data, "{}: expected a SentencePiece model, found {}", path, found);
}

/// Counts the texts and messages of a serialised message: a file of 32 MiB may hold 16 million empty ones, which take a
/// gigabyte when they are parsed. Ends at what is no message; the parser refuses that.
struct FieldCount {
    size_t outer = 0, inner = 0;

    void add(std::string_view bytes) {
        for (uint64_t tag = 0; read_varint(bytes, tag);) {
            uint64_t size = 0;
            const int kind = static_cast<int>(tag & 7);
            if (kind == 0 && !read_varint(bytes, size)) return;
            if (kind == 2 && !read_varint(bytes, size)) return;
            if (kind == 0) continue;
            if (kind == 1) size = 8;
            if (kind == 5) size = 4;
            if ((kind != 1 && kind != 2 && kind != 5) || size > bytes.size()) return;
            if (kind == 2) {
                ++(nested ? inner : outer);
                if (!nested) add_inner(bytes.substr(0, size));
            }
            bytes.remove_prefix(size);
        }
    }

  private:
    void add_inner(std::string_view bytes) {
        nested = true;
        add(bytes);
        nested = false;
    }
    static bool read_varint(std::string_view& bytes, uint64_t& value) {
        value = 0;
        for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
            const auto byte = static_cast<unsigned char>(bytes.front());
            bytes.remove_prefix(1);
            value |= static_cast<uint64_t>(byte & 0x7f) << shift;
            if (byte < 0x80) return true;
        }
        return false;
    }
    bool nested = false;
};

void check_counts(std::string_view bytes, const std::string& path) {
    constexpr size_t others = limits::sentencepiece_others;
    FieldCount count;
    count.add(bytes);
    if (count.outer > most_pieces + others || count.inner > most_pieces + others)
        fail(Exit::data, "{}: {} pieces and {} texts; expected at most {}", path, count.outer, count.inner,
             most_pieces + others);
}

void check_pieces(const spm::Model& model, const std::string& path) {
    if (model.pieces_size() > most_pieces)
        fail(Exit::data, "{}: {} pieces; expected 1 to {}", path, model.pieces_size(), most_pieces);
    std::unordered_set<std::string_view> seen;
    int unknown = 0;
    for (int id = 0; id < model.pieces_size(); ++id) {
        const spm::Piece& piece = model.pieces(id);
        const std::string& text = piece.piece();
        if (text.empty() || text.size() > longest_piece)
            fail(Exit::data, "{}: piece {} has {} bytes; expected 1 to {}", path, id, text.size(), longest_piece);
        if (well_formed_prefix(text) != text.size())
            fail(Exit::data, "{}: piece {} is not valid UTF-8; expected text", path, id);
        if (!std::isfinite(piece.score()))
            fail(Exit::data, "{}: piece {} has score {}; expected a finite number", path, id, piece.score());
        if (piece.type() < 1 || piece.type() > 6)
            fail(Exit::data, "{}: piece {} has type {}; expected 1 to 6", path, id, piece.type());
        if (!seen.insert(text).second) fail(Exit::data, "{}: piece {} is a duplicate", path, id);
        unknown += piece.type() == unknown_piece;
    }
    if (unknown != 1) fail(Exit::data, "{}: {} unknown pieces; expected exactly one", path, unknown);
    const spm::TrainerSpec& trainer = model.trainer_spec();
    for (const auto& [name, id] : {std::pair{"unk_id", trainer.unk_id()},
                                   {"bos_id", trainer.bos_id()},
                                   {"eos_id", trainer.eos_id()},
                                   {"pad_id", trainer.pad_id()}})
        if (id < -1 || id >= model.pieces_size())
            fail(Exit::data, "{}: {} is {}; expected -1 to {}", path, name, id, model.pieces_size() - 1);
}

/// Whether a space, or U+2581 which stands for it, follows another character.
bool joins_words(std::string piece) {
    constexpr std::string_view escaped = "\xE2\x96\x81";
    for (size_t at; (at = piece.find(escaped)) != piece.npos;) piece.replace(at, escaped.size(), " ");
    const size_t word = piece.find_first_not_of(' ');
    return word != piece.npos && piece.find(' ', word) != piece.npos;
}

}  // namespace

std::optional<std::string> check_sentencepiece_model(const std::string& bytes, const std::string& path) {
    check_counts(bytes, path);
    spm::Model model;
    if (!model.ParseFromString(bytes) || model.pieces_size() == 0) refuse(bytes, path);
    check_pieces(model, path);
    for (const auto& [spec, name] :
         {std::pair{&model.normalizer_spec(), "normalizer"}, {&model.denormalizer_spec(), "denormalizer"}})
        if (!spec->precompiled_charsmap().empty())
            check_charsmap(spec->precompiled_charsmap(), fmt::format("{}: the {} table", path, name));
    if (!model.normalizer_spec().add_dummy_prefix()) return std::nullopt;
    model.mutable_normalizer_spec()->set_add_dummy_prefix(false);
    return model.SerializeAsString();
}

bool words_stand_alone(const std::string& bytes) {
    spm::Model model;
    if (!model.ParseFromString(bytes)) return false;
    const spm::NormalizerSpec& normalizer = model.normalizer_spec();
    if (model.trainer_spec().model_type() != bpe || model.trainer_spec().treat_whitespace_as_suffix() ||
        !normalizer.precompiled_charsmap().empty() || normalizer.remove_extra_whitespaces() ||
        !normalizer.escape_whitespaces())
        return false;
    // An unused piece is split again in the way in which it was first merged anywhere in the text. Adjacent unknown
    // pieces are merged into one, so the space must be a known piece.
    bool knows_space = false;
    for (const spm::Piece& piece : model.pieces()) {
        if (piece.type() == unused_piece || joins_words(piece.piece())) return false;
        knows_space |= piece.piece() == "\xE2\x96\x81";
    }
    return knows_space;
}

std::vector<SentencePieceSymbol> sentencepiece_symbols(const std::string& bytes) {
    spm::Model model;
    std::vector<SentencePieceSymbol> symbols;
    if (!model.ParseFromString(bytes)) return symbols;
    for (int id = 0; id < model.pieces_size(); ++id)
        if (const int type = model.pieces(id).type(); type == control_piece || type == user_defined_piece)
            symbols.push_back({model.pieces(id).piece(), id, type == control_piece});
    return symbols;
}

bool looks_like_control(std::string_view piece) {
    if (piece.size() < 3) return false;
    if (piece.starts_with("<|") && piece.ends_with("|>")) return true;
    if (piece == "<start_of_turn>" || piece == "<end_of_turn>") return true;
    return piece.front() == '[' && piece.back() == ']' && std::all_of(piece.begin() + 1, piece.end() - 1, [](char c) {
               return (c >= 'A' && c <= 'Z') || c == '_' || c == '/';
           });
}

}  // namespace colonnade
