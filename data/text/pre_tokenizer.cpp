#include "data/text/pre_tokenizer.h"

#include <algorithm>

#include "data/text/normalizer.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) {
    if (!json.is_null()) read(json, where + ": pre_tokenizer", 0);
}

void PreTokenizer::read(const Json& json, const std::string& where, int depth) {
    const std::string kind = json_kind(json, where);
    const auto add = [this](Kind k) -> Step& {
        Step step;
        step.kind = k;
        return steps_.emplace_back(step);
    };
    if (kind == "Sequence") {
        for (const Json& part : json_sequence(json, "pretokenizers", depth, where)) read(part, where, depth + 1);
    } else if (kind == "ByteLevel") {
        if (json_flag(json, "add_prefix_space", true, where + ": ByteLevel")) add(Kind::prefix_space);
        if (json_flag(json, "use_regex", true, where + ": ByteLevel"))
            add(Kind::pattern).splitter = find_known_splitter(gpt2_pattern);
        add(Kind::spell_bytes);
    } else if (kind == "Split") {
        read_split(json, where + ": Split");
    } else if (kind == "Metaspace") {
        read_metaspace(json, where + ": Metaspace");
    } else if (kind == "Digits") {
        const bool single = json_flag(json, "individual_digits", false, where + ": Digits");
        Step& step = add(Kind::classes);
        step.classes = unicode::numeric;
        step.behavior = single ? Behavior::isolated : Behavior::contiguous;
    } else if (kind == "Punctuation") {
        Step& step = add(Kind::classes);
        step.classes = unicode::punctuation;
        step.behavior = json.contains("behavior") ? read_behavior(json, where + ": Punctuation") : Behavior::isolated;
    } else if (kind == "Whitespace") {
        add(Kind::words);
    } else if (kind == "WhitespaceSplit" || kind == "BertPreTokenizer") {
        Step& step = add(Kind::classes);
        step.classes = unicode::space;
        step.behavior = Behavior::removed;
        if (kind == "BertPreTokenizer") add(Kind::classes).classes = unicode::punctuation;
    } else {
        fail(Exit::data, "{}: {:.100} is not supported", where, kind);
    }
}

PreTokenizer::Behavior PreTokenizer::read_behavior(const Json& json, const std::string& where) {
    const std::string name = json_text(json, "behavior", where);
    if (name == "Removed") return Behavior::removed;
    if (name == "Isolated") return Behavior::isolated;
    if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
    if (name == "MergedWithNext") return Behavior::merged_with_next;
    if (name == "Contiguous") return Behavior::contiguous;
    fail(Exit::data, "{}: behavior '{:.100}' is unknown", where, name);
}

void PreTokenizer::read_split(const Json& json, const std::string& where) {
    Step step;
    step.kind = Kind::text;
    step.behavior = read_behavior(json, where);
    step.invert = json_flag(json, "invert", false, where);
    const bool is_pattern = json_pattern(json, step.text, where);
    if (step.text.empty()) fail(Exit::data, "{}: an empty pattern is not supported", where);
    if (is_pattern) {
        step.kind = Kind::pattern;
        step.splitter = find_known_splitter(step.text);
        if (!step.splitter) step.regex = std::make_shared<const Regex>(step.text, where);
    }
    steps_.push_back(step);
}

void PreTokenizer::read_metaspace(const Json& json, const std::string& where) {
    Step step;
    step.kind = Kind::metaspace;
    Metaspace metaspace = json_metaspace(json, where);
    step.text = std::move(metaspace.replacement);
    step.prepend = metaspace.prepend;
    steps_.push_back(step);
    if (!json_flag(json, "split", true, where)) return;
    step.kind = Kind::text;
    step.behavior = Behavior::merged_with_next;
    steps_.push_back(step);
}

bool PreTokenizer::spells_bytes() const {
    return std::any_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::spell_bytes; });
}

bool PreTokenizer::leave_bytes() {
    const auto first =
        std::find_if(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::spell_bytes; });
    if (first == steps_.end() || first + 1 != steps_.end()) return false;
    steps_.pop_back();
    return true;
}

void PreTokenizer::split(PiecesOfText& pieces) const {
    pieces.pieces.clear();
    if (!pieces.text.empty()) pieces.pieces.push_back({0, static_cast<uint32_t>(pieces.text.size())});
    for (const Step& step : steps_) {
        const bool writes =
            step.kind == Kind::prefix_space || step.kind == Kind::spell_bytes || step.kind == Kind::metaspace;
        writes ? write(step, pieces) : cut(step, pieces);
    }
}

/// The common case is a pattern whose matches are the pieces.
void PreTokenizer::cut(const Step& step, PiecesOfText& pieces) {
    std::vector<Piece>& out = pieces.scratch;
    out.clear();
    std::vector<Piece> found;
    std::vector<Match> parts;
    const bool covers = step.kind == Kind::pattern && step.behavior == Behavior::isolated;
    for (const Piece piece : pieces.pieces) {
        if (covers && step.splitter.covers_text) {
            step.splitter.find(pieces.text.data(), piece, out);
            continue;
        }
        found.clear();
        find_matches(step, pieces.text, piece, found);
        if (step.kind == Kind::words) {
            out.insert(out.end(), found.begin(), found.end());
            continue;
        }
        parts.clear();
        uint32_t end = piece.begin;
        for (const Piece match : found) {
            if (end < match.begin) parts.push_back({{end, match.begin}, step.invert});
            parts.push_back({match, !step.invert});
            end = match.end;
        }
        if (end < piece.end) parts.push_back({{end, piece.end}, step.invert});
        join(parts, step.behavior, out);
    }
    if (step.regex)  // whose matches can be empty
        out.erase(std::remove_if(out.begin(), out.end(), [](Piece p) { return p.begin == p.end; }), out.end());
    pieces.pieces.swap(out);
}

void PreTokenizer::find_matches(const Step& step, std::string_view text, Piece piece, std::vector<Piece>& found) {
    const auto place = [&](const char* p) { return static_cast<uint32_t>(p - text.data()); };
    if (step.regex) return step.regex->find(text.substr(piece.begin, piece.end - piece.begin), piece.begin, found);
    if (step.kind == Kind::pattern) return step.splitter.find(text.data(), piece, found);
    if (step.kind == Kind::text) {
        const std::string_view part = text.substr(0, piece.end);
        for (size_t at = part.find(step.text, piece.begin); at != part.npos;
             at = part.find(step.text, found.back().end))
            found.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + step.text.size())});
        return;
    }
    const char* end = text.data() + piece.end;
    unsigned run = 0;  // class of the run that `words` is in: 1 a word, 2 other characters, 0 white space
    for (const char* p = text.data() + piece.begin; p < end;) {
        const Character c = character_at(p);
        const unsigned classes = unicode_class(c.point);
        const Piece here{place(p), place(p) + c.bytes};
        p += c.bytes;
        if (step.kind == Kind::classes) {
            if (classes & step.classes) found.push_back(here);
            continue;
        }
        const unsigned kind = classes & unicode::word_rust ? 1 : classes & unicode::space ? 0 : 2;
        if (kind != 0 && kind == run)
            found.back().end = here.end;
        else if (kind != 0)
            found.push_back(here);
        run = kind;
    }
}

void PreTokenizer::join(std::vector<Match>& parts, Behavior behavior, std::vector<Piece>& out) {
    const bool backwards = behavior == Behavior::merged_with_next;
    if (backwards) std::reverse(parts.begin(), parts.end());
    const size_t first = out.size();
    bool matched = false;  // whether the part before is a match
    for (const Match& part : parts) {
        const bool merge_once = behavior == Behavior::merged_with_previous || behavior == Behavior::merged_with_next;
        const bool merges =
            behavior == Behavior::contiguous ? part.matches == matched : merge_once && part.matches && !matched;
        if (merges && out.size() > first)
            (backwards ? out.back().begin : out.back().end) = backwards ? part.piece.begin : part.piece.end;
        else if (behavior != Behavior::removed || !part.matches)
            out.push_back(part.piece);
        matched = part.matches;
    }
    if (backwards) std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

void PreTokenizer::write(const Step& step, PiecesOfText& pieces) {
    // A step before may have dropped the beginning of the text.
    const bool from_start = !pieces.pieces.empty() && pieces.pieces[0].begin == 0;
    const TextStart start = from_start ? pieces.start : TextStart::behind_token;
    std::string written;
    written.reserve(pieces.text.size() + pieces.text.size() / 2);
    for (size_t i = 0; i < pieces.pieces.size(); ++i) {
        Piece& piece = pieces.pieces[i];
        const std::string_view part = pieces.text.substr(piece.begin, piece.end - piece.begin);
        piece.begin = static_cast<uint32_t>(written.size());
        const bool continues = i == 0 && start == TextStart::continues;
        if (step.kind == Kind::prefix_space) {
            if (!part.starts_with(' ') && !continues) written += ' ';
            written += part;
        } else if (step.kind == Kind::spell_bytes) {
            written += spell_bytes(part);
        } else {
            const bool prepends =
                !continues && (step.prepend == Prepend::always ||
                               (step.prepend == Prepend::first && start == TextStart::document && i == 0));
            if (prepends && !part.starts_with(' ') && !part.starts_with(step.text)) written += step.text;
            written += replace_all(part, " ", step.text);
        }
        piece.end = static_cast<uint32_t>(written.size());
    }
    pieces.start = start;
    pieces.written.swap(written);
    pieces.text = pieces.written;
}

}  // namespace colonnade
