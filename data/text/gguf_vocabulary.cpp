#include "data/text/gguf_vocabulary.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "data/text/gguf_pre_tokenizers.h"
#include "data/text/split_pattern.h"
#include "data/text/tokenizer_json.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "sentencepiece_model.pb.h"

namespace colonnade {
namespace {

using Extra = GgufPreTokenizer::Extra;

constexpr std::string_view space_mark = "\xE2\x96\x81";

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
    fail(Exit::data, "{}: {}, for which a GGUF file has no place", where, what);
}

std::string type_of(const Json& json) {
    return json.is_object() && json.contains("type") && json["type"].is_string() ? json["type"].get<std::string>() : "";
}

// The steps of a section that is null, one step, or a Sequence of them.
std::vector<Json> steps_of(const Json& tokenizer, const char* section, const char* list) {
    const Json json = tokenizer.value(section, Json());
    if (json.is_null()) return {};
    if (type_of(json) != "Sequence") return {json};
    return json.value(list, Json::array()).get<std::vector<Json>>();
}

bool has(const Json& json, const char* key, const Json& value) {
    return json.contains(key) && json[key] == value;
}

// --- Byte-level BPE --------------------------------------------------------------------------------------------------

// A Split that leaves its matches as they are: it cuts them out, or keeps nothing else.
bool keeps_matches(const Json& split) {
    return (has(split, "behavior", "Isolated") && has(split, "invert", false)) ||
           (has(split, "behavior", "Removed") && has(split, "invert", true));
}

// The name of the split, whether or not merges are ignored for whole words. Null: it has none.
const GgufPreTokenizer* find_split(const std::vector<Json>& normalizers, const std::vector<Json>& steps,
                                   bool ignore_merges) {
    if (steps.empty() || type_of(steps.back()) != "ByteLevel" || steps.size() > 2) return nullptr;
    if (has(steps.back(), "add_prefix_space", true)) return nullptr;
    const bool gpt2 = !has(steps.back(), "use_regex", false);
    Extra extra = Extra::none;
    std::string pattern(gpt2 ? gpt2_pattern : std::string_view());
    if (steps.size() == 2 && gpt2) {
        if (type_of(steps[0]) != "Digits" || !has(steps[0], "individual_digits", true)) return nullptr;
        extra = Extra::single_digits;
    } else if (steps.size() == 2) {
        if (type_of(steps[0]) != "Split" || !keeps_matches(steps[0])) return nullptr;
        const Json& regex = steps[0].value("pattern", Json::object());
        if (!regex.contains("Regex")) return nullptr;
        pattern = regex["Regex"].get<std::string>();
    }
    const bool nfc = normalizers.size() == 1 && type_of(normalizers[0]) == "NFC";
    if ((!normalizers.empty() && !nfc) || (nfc && extra != Extra::none)) return nullptr;
    if (nfc) extra = Extra::nfc;
    const GgufPreTokenizer* other = nullptr;
    for (const GgufPreTokenizer& known : gguf_pre_tokenizers()) {
        if (known.pattern != pattern || known.extra != extra) continue;
        if (known.ignore_merges == ignore_merges) return &known;
        if (!other) other = &known;
    }
    return other;
}

void read_byte_pairs(const Json& tokenizer, const std::string& where, GgufVocabulary& v) {
    const Json& model = tokenizer["model"];
    const bool ignore_merges = has(model, "ignore_merges", true);
    const std::vector<Json> normalizers = steps_of(tokenizer, "normalizer", "normalizers"),
                            steps = steps_of(tokenizer, "pre_tokenizer", "pretokenizers");
    const GgufPreTokenizer* pre = find_split(normalizers, steps, ignore_merges);
    if (!pre)
        fail(Exit::data,
             "{}: pre_tokenizer {:.300} with normalizer {:.100} has no name in llama.cpp that Colonnade knows; a GGUF "
             "file cannot say how text is split",
             where, Json(steps).dump(), Json(normalizers).dump());
    v.model = "gpt2";
    v.pre = pre->name;
    if (pre->ignore_merges != ignore_merges)
        v.notices.push_back(fmt::format(
            "llama.cpp {} for tokenizer.ggml.pre '{}', this tokenizer does not: rare words "
            "may get other ids",
            pre->ignore_merges ? "takes a word that is a token before it merges" : "merges the bytes of every word",
            v.pre));
    if (pre->extra == Extra::nfc)
        v.notices.emplace_back(
            "llama.cpp does not compose characters (NFC), as this tokenizer does: texts with combining marks get other "
            "ids");
    for (const auto& [piece, id] : model["vocab"].items()) v.set(id.get<size_t>(), piece, PieceType::normal);
    for (const Json& merge : model["merges"])
        v.merges.push_back(merge.is_string() ? merge.get<std::string>()
                                             : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
}

// --- SentencePiece BPE in a tokenizer.json ----------------------------------------------------------------------------

// Whether the steps in front of the model do no more than write U+2581 for spaces and put one in front.
bool changes_spaces_alone(const Json& tokenizer) {
    for (const Json& step : steps_of(tokenizer, "normalizer", "normalizers")) {
        const bool replaces = type_of(step) == "Replace" && step.value("pattern", Json()) == Json{{"String", " "}} &&
                              has(step, "content", space_mark);
        if (!replaces && !(type_of(step) == "Prepend" && has(step, "prepend", space_mark))) return false;
    }
    for (const Json& step : steps_of(tokenizer, "pre_tokenizer", "pretokenizers")) {
        const bool metaspace = type_of(step) == "Metaspace" && has(step, "split", false);
        // Gemma has one behind a normalizer that leaves no plain space.
        const bool nothing = type_of(step) == "Split" && step.value("pattern", Json()) == Json{{"String", " "}};
        if (!metaspace && !nothing) return false;
    }
    return true;
}

// Scores from merges: the product of an earlier merge has a higher one. llama.cpp merges any two neighbours whose text
// is a token, so every way to cut a product into two tokens has to be a merge.
void score_by_merges(const Json& merges, const std::string& where, GgufVocabulary& v) {
    std::unordered_map<std::string_view, size_t> ids;
    for (size_t id = 0; id < v.tokens.size(); ++id)
        if (v.types[id] == static_cast<int32_t>(PieceType::normal)) ids.emplace(v.tokens[id], id);
    std::unordered_map<std::string, size_t> cuts;  // merges of each product
    std::string last;
    float score = 0;
    for (const Json& merge : merges) {
        std::string left, right;
        if (merge.is_string()) {
            const auto text = merge.get<std::string>();
            const size_t space = text.find(' ', 1);
            left = text.substr(0, space), right = text.substr(std::min(space, text.size() - 1) + 1);
        } else {
            left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
        }
        const std::string product = left + right;
        if (product != last) {
            const auto id = ids.find(product);
            if (id == ids.end() || cuts.contains(product))
                refuse(where, fmt::format("merge '{}' + '{}' is not beside the others of its product", left, right));
            v.scores[id->second] = score -= 1;
        }
        ++cuts[product];
        last = product;
    }
    for (const auto& [text, id] : ids) {
        size_t possible = 0;
        for (size_t cut = character_at(text.data()).bytes; cut < text.size();
             cut += character_at(text.data() + cut).bytes)
            possible += ids.contains(text.substr(0, cut)) && ids.contains(text.substr(cut));
        const auto found = cuts.find(std::string(text));
        if (possible != (found == cuts.end() ? 0 : found->second))
            refuse(where, fmt::format("token '{}' can be made of two tokens in {} ways, of which {} are merges", text,
                                      possible, found == cuts.end() ? 0 : found->second));
    }
}

bool is_byte_piece(std::string_view text) {
    return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
           text.substr(3, 2).find_first_not_of("0123456789ABCDEF") == text.npos;
}

void note_missing_bytes(GgufVocabulary& v) {
    if (std::ranges::find(v.types, static_cast<int32_t>(PieceType::byte)) == v.types.end())
        v.notices.emplace_back("the vocabulary has no byte pieces: llama.cpp cannot encode a character that it lacks");
}

void read_sentence_pieces(const Json& tokenizer, const std::string& where, GgufVocabulary& v) {
    const Json& model = tokenizer["model"];
    if (!changes_spaces_alone(tokenizer))
        refuse(where, fmt::format("normalizer {:.200} with pre_tokenizer {:.200}",
                                  tokenizer.value("normalizer", Json()).dump(),
                                  tokenizer.value("pre_tokenizer", Json()).dump()));
    const bool bytes = has(model, "byte_fallback", true);
    const std::string unknown =
        model.value("unk_token", Json()).is_string() ? model["unk_token"].get<std::string>() : "";
    v.model = "llama";
    for (const auto& [piece, id] : model["vocab"].items())
        v.set(id.get<size_t>(), piece,
              piece == unknown                ? PieceType::unknown
              : bytes && is_byte_piece(piece) ? PieceType::byte
                                              : PieceType::normal);
    v.scores.assign(v.tokens.size(), 0);
    // Control and user-defined tokens are no products.
    GgufVocabulary pieces = v;
    for (const Json& token : tokenizer.value("added_tokens", Json::array()))
        if (const auto id = token["id"].get<size_t>(); id < pieces.types.size())
            pieces.types[id] = static_cast<int32_t>(PieceType::control);
    score_by_merges(model["merges"], where, pieces);
    v.scores = std::move(pieces.scores);
    note_missing_bytes(v);
}

// --- Added tokens ----------------------------------------------------------------------------------------------------

void add_tokens(const Json& tokenizer, GgufVocabulary& v) {
    std::vector<std::string> flagged;
    for (const Json& token : tokenizer.value("added_tokens", Json::array())) {
        const auto id = token["id"].get<size_t>();
        auto text = token["content"].get<std::string>();
        if (text.empty()) continue;
        for (const char* flag : {"lstrip", "rstrip", "single_word"})
            if (has(token, flag, true)) flagged.push_back(fmt::format("'{}' ({})", text, flag));
        const bool unknown = id < v.types.size() && v.types[id] == static_cast<int32_t>(PieceType::unknown);
        v.set(id, std::move(text),
              unknown                       ? PieceType::unknown
              : has(token, "special", true) ? PieceType::control
                                            : PieceType::user_defined);
    }
    if (!flagged.empty())
        v.notices.push_back(
            fmt::format("a GGUF file cannot say how these tokens are found in a text: {}", fmt::join(flagged, ", ")));
}

void check_duplicates(const GgufVocabulary& v, const std::string& where) {
    std::unordered_set<std::string_view> seen;
    for (const std::string& token : v.tokens)
        if (!seen.insert(token).second) refuse(where, fmt::format("two ids have the token '{}'", token));
}

}  // namespace

void GgufVocabulary::set(size_t id, std::string text, PieceType type) {
    pad_to(id + 1);
    tokens[id] = std::move(text);
    types[id] = static_cast<int32_t>(type);
}

void GgufVocabulary::pad_to(size_t size) {
    for (size_t id = tokens.size(); id < size; ++id) {
        tokens.push_back(fmt::format("[PAD{}]", id));
        types.push_back(static_cast<int32_t>(PieceType::unused));
    }
    if (model == "llama") scores.resize(tokens.size(), 0);
}

GgufVocabulary gguf_vocabulary(const Json& tokenizer, const std::string& where) {
    GgufVocabulary v;
    const Json& model = tokenizer["model"];
    if (const std::string kind = type_of(model); kind != "BPE")
        refuse(where, fmt::format("the tokenizer's model is {}, expected BPE", kind));
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
        if (const Json value = model.value(affix, Json()); value.is_string() && !value.get<std::string>().empty())
            refuse(where, fmt::format("the tokenizer has {} {}", affix, value.dump()));
    const std::vector<Json> steps = steps_of(tokenizer, "pre_tokenizer", "pretokenizers");
    const bool byte_level = std::ranges::any_of(steps, [](const Json& s) { return type_of(s) == "ByteLevel"; });
    if (byte_level)
        read_byte_pairs(tokenizer, where, v);
    else
        read_sentence_pieces(tokenizer, where, v);
    add_tokens(tokenizer, v);
    check_duplicates(v, where);
    return v;
}

GgufVocabulary gguf_vocabulary(const std::string& bytes, const Tokenizer& tokenizer) {
    const std::string& where = tokenizer.path();
    spm::Model model;
    if (!model.ParseFromString(bytes)) fail(Exit::data, "{}: the model is damaged", where);
    constexpr int bpe = 2;
    if (model.trainer_spec().model_type() != bpe) refuse(where, "a SentencePiece model of another kind than BPE");
    if (model.trainer_spec().treat_whitespace_as_suffix()) refuse(where, "a model that puts spaces behind words");
    const spm::NormalizerSpec& normalizer = model.normalizer_spec();
    if (!normalizer.escape_whitespaces()) refuse(where, "a model that does not escape spaces");
    if (!normalizer.precompiled_charsmap().empty())
        refuse(where, fmt::format("a BPE model that normalises text ({})", normalizer.name()));
    if (normalizer.remove_extra_whitespaces()) refuse(where, "a BPE model that removes spaces");
    GgufVocabulary v{.model = "llama", .pre = ""};
    for (const spm::Piece& p : model.pieces()) {
        const size_t id = v.tokens.size();
        const auto type = static_cast<PieceType>(p.type());
        const bool special = tokenizer.is_special(static_cast<int32_t>(id)) && type != PieceType::unknown;
        v.set(id, p.piece(), special ? PieceType::control : type);
        v.scores[id] = p.score();
    }
    for (auto id = static_cast<int32_t>(v.tokens.size()); id < tokenizer.vocab_size(); ++id)
        v.set(static_cast<size_t>(id), tokenizer.piece(id),
              tokenizer.is_special(id) ? PieceType::control : PieceType::user_defined);
    note_missing_bytes(v);
    check_duplicates(v, where);
    return v;
}

}  // namespace colonnade
