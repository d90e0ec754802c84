#include "data/text/token_decoder.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "data/text/byte_pair_model.h"
#include "data/text/tokenizer_json.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

std::string joined(const std::vector<std::string>& pieces) {
    return std::accumulate(pieces.begin(), pieces.end(), std::string());
}

/// The byte of a piece such as "<0x0A>", or -1.
int fallback_byte(const std::string& piece) {
    if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
    int value = 0;
    for (const char c : piece.substr(3, 2)) {
        if (!std::isxdigit(static_cast<unsigned char>(c))) return -1;
        value = 16 * value + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

/// Joins runs of fallback bytes: text if they are well-formed, otherwise U+FFFD for each byte.
std::vector<std::string> join_fallback_bytes(const std::vector<std::string>& pieces) {
    std::vector<std::string> out;
    std::string bytes;
    const auto flush = [&] {
        if (well_formed_prefix(bytes) == bytes.size())
            out.push_back(bytes);
        else
            out.insert(out.end(), bytes.size(), std::string(replacement));
        bytes.clear();
    };
    for (const std::string& piece : pieces) {
        if (const int byte = fallback_byte(piece); byte >= 0) {
            bytes += static_cast<char>(byte);
            continue;
        }
        if (!bytes.empty()) flush();
        out.push_back(piece);
    }
    if (!bytes.empty()) flush();
    return out;
}

/// English text without the spaces that word pieces bring.
std::string cleaned_up(std::string text) {
    constexpr std::pair<std::string_view, std::string_view> changes[] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : changes) text = replace_all(text, from, to);
    return text;
}

/// Cuts up to `start` and `stop` characters off the ends, while they are `character`.
std::string stripped(std::string_view piece, std::string_view character, size_t start, size_t stop) {
    for (; start > 0 && piece.starts_with(character); --start) piece.remove_prefix(character.size());
    for (; stop > 0 && piece.ends_with(character); --stop) piece.remove_suffix(character.size());
    return std::string(piece);
}

/// A text that pieces are searched for: the package would find an empty one between all characters.
std::string written_text(const Json& json, const char* key, const std::string& where) {
    std::string text = json_text(json, key, where);
    if (text.empty()) fail(Exit::data, "{}: {}: expected a text that is not empty", where, key);
    return text;
}

std::string join_byte_level(const std::vector<std::string>& pieces) {
    std::string text, bytes;
    for (const std::string& piece : pieces) text += spelled_bytes(piece, bytes) ? bytes : piece;
    return replace_ill_formed(text);
}

}  // namespace

TokenDecoder::TokenDecoder(const Json& json, const std::string& where) : joins_with_spaces_(json.is_null()) {
    if (!json.is_null()) read(json, where + ": decoder", 0);
}

void TokenDecoder::read(const Json& json, const std::string& where, int depth) {
    const std::string kind = json_kind(json, where);
    const auto add = [this](Kind k) -> Step& {
        return steps_.emplace_back(Step{.kind = k, .pattern = {}, .content = {}, .replacement = {}});
    };
    if (kind == "Sequence") {
        for (const Json& part : json_sequence(json, "decoders", depth, where)) read(part, where, depth + 1);
    } else if (kind == "ByteLevel") {
        add(Kind::byte_level);
    } else if (kind == "ByteFallback") {
        add(Kind::byte_fallback);
    } else if (kind == "Fuse") {
        add(Kind::fuse);
    } else if (kind == "Metaspace") {
        Step& step = add(Kind::metaspace);
        const Metaspace metaspace = json_metaspace(json, where + ": Metaspace");
        step.pattern = metaspace.replacement;
        step.keeps_first = metaspace.prepend == Metaspace::Prepend::never;
    } else if (kind == "Replace") {
        add(Kind::replace).replacement = std::make_shared<const Replacement>(json, where + ": Replace");
    } else if (kind == "Strip") {
        Step& step = add(Kind::strip);
        step.content = json_text(json, "content", where + ": Strip");
        step.start = json_count(json, "start", where + ": Strip");
        step.stop = json_count(json, "stop", where + ": Strip");
        if (!is_one_character(step.content)) fail(Exit::data, "{}: Strip: content: expected one character", where);
    } else if (kind == "BPEDecoder") {
        add(Kind::suffix).pattern = written_text(json, "suffix", where + ": BPEDecoder");
    } else if (kind == "WordPiece") {
        Step& step = add(Kind::word_piece);
        step.pattern = json_text(json, "prefix", where + ": WordPiece");
        step.cleans_up = json_flag(json, "cleanup", true, where + ": WordPiece");
    } else if (kind == "CTC") {
        Step& step = add(Kind::ctc);
        step.pattern = written_text(json, "pad_token", where + ": CTC");
        step.content = written_text(json, "word_delimiter_token", where + ": CTC");
        step.cleans_up = json_flag(json, "cleanup", true, where + ": CTC");
    } else {
        fail(Exit::data, "{}: {:.100} is not supported", where, kind);
    }
}

/// Neighbouring pieces that are equal count once.
std::vector<std::string> TokenDecoder::without_repeats(const Step& step, std::vector<std::string>& pieces) {
    pieces.erase(std::unique(pieces.begin(), pieces.end()), pieces.end());
    std::vector<std::string> out;
    for (const std::string& piece : pieces) {
        std::string text = replace_all(piece, step.pattern, "");
        if (step.cleans_up) text = replace_all(cleaned_up(text), step.content, " ");
        if (!text.empty()) out.push_back(std::move(text));
    }
    return out;
}

void TokenDecoder::apply(const Step& step, std::vector<std::string>& pieces) {
    switch (step.kind) {
        case Kind::byte_level:
            pieces = {join_byte_level(pieces)};
            return;
        case Kind::byte_fallback:
            pieces = join_fallback_bytes(pieces);
            return;
        case Kind::fuse:
            pieces = {joined(pieces)};
            return;
        case Kind::ctc:
            pieces = without_repeats(step, pieces);
            return;
        default:
            break;
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
        std::string& piece = pieces[i];
        if (step.kind == Kind::metaspace) {
            piece = replace_all(piece, step.pattern, i > 0 || step.keeps_first ? " " : "");
        } else if (step.kind == Kind::suffix) {
            piece = replace_all(piece, step.pattern, i + 1 < pieces.size() ? " " : "");
        } else if (step.kind == Kind::word_piece) {
            if (i > 0) piece = piece.starts_with(step.pattern) ? piece.substr(step.pattern.size()) : " " + piece;
            if (step.cleans_up) piece = cleaned_up(piece);
        } else if (step.kind == Kind::replace) {
            piece = step.replacement->apply(piece);
        } else {
            piece = stripped(piece, step.content, step.start, step.stop);
        }
    }
}

std::string TokenDecoder::decode(std::vector<std::string> pieces) const {
    for (const Step& step : steps_) apply(step, pieces);
    if (!joins_with_spaces_) return joined(pieces);
    std::string text;
    for (size_t i = 0; i < pieces.size(); ++i) text += (i > 0 ? " " : "") + pieces[i];
    return text;
}

}  // namespace colonnade
