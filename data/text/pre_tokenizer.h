#pragma once
// PreTokenizer: the "pre_tokenizer" of a tokenizer.json, which cuts text into the pieces that the model encodes.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/regex.h"
#include "data/text/split_pattern.h"
#include "data/text/text_start.h"
#include "data/text/tokenizer_json.h"

namespace colonnade {

/// Text and its pieces. Steps cut the pieces, and some write a new text.
struct PiecesOfText {
    std::string_view text;
    std::vector<Piece> pieces;
    TextStart start = TextStart::document;  ///< what stands before the first byte of `text`

    std::string written;         ///< `text` points here once a step has written it
    std::vector<Piece> scratch;  ///< of a step
};

class PreTokenizer {
  public:
    /// Throws Exit::data with "where: ..." for a damaged one; for a kind or a pattern that Colonnade does not know, by
    /// its name.
    PreTokenizer(const Json& json, const std::string& where);

    bool spells_bytes() const;  ///< has a ByteLevel step
    /// Lets a last ByteLevel step leave bytes as they are, for a model over bytes. Returns false, and does nothing, if
    /// bytes are spelled before another step.
    bool leave_bytes();
    void split(PiecesOfText& pieces) const;

  private:
    enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
    enum class Kind { pattern, text, classes, words, prefix_space, spell_bytes, metaspace };
    using Prepend = Metaspace::Prepend;
    struct Step {
        Kind kind = Kind::pattern;
        Behavior behavior = Behavior::isolated;
        bool invert = false;
        KnownSplitter splitter;
        std::shared_ptr<const Regex> regex;  // of a pattern without a splitter
        std::string text;
        unsigned classes = 0;
        Prepend prepend = Prepend::never;
    };
    struct Match {
        Piece piece;
        bool matches;
    };

    void read(const Json& json, const std::string& where, int depth);
    void read_split(const Json& json, const std::string& where);
    void read_metaspace(const Json& json, const std::string& where);
    static Behavior read_behavior(const Json& json, const std::string& where);
    static void cut(const Step& step, PiecesOfText& pieces);
    static void find_matches(const Step& step, std::string_view text, Piece piece, std::vector<Piece>& found);
    static void join(std::vector<Match>& parts, Behavior behavior, std::vector<Piece>& out);
    static void write(const Step& step, PiecesOfText& pieces);

    std::vector<Step> steps_;
};

}  // namespace colonnade
