#pragma once
// TokenDecoder: the "decoder" of a tokenizer.json, which turns pieces back into text.

#include <memory>
#include <string>
#include <vector>

#include "data/text/tokenizer_json.h"

namespace colonnade {

class TokenDecoder {
  public:
    /// Throws Exit::data with "where: ..." for a damaged one, and for a kind that Colonnade does not know, by its name.
    TokenDecoder(const Json& json, const std::string& where);
    std::string decode(std::vector<std::string> pieces) const;

  private:
    enum class Kind { byte_level, byte_fallback, metaspace, replace, fuse, strip, suffix, word_piece, ctc };
    struct Step {
        Kind kind;
        std::string pattern, content;
        size_t start = 0, stop = 0;  // characters to strip
        bool keeps_first = false;    // metaspace: the first piece keeps its spaces
        bool cleans_up = false;      // word_piece, ctc
        std::shared_ptr<const Replacement> replacement;
    };
    void read(const Json& json, const std::string& where, int depth);
    static std::vector<std::string> without_repeats(const Step& step, std::vector<std::string>& pieces);
    static void apply(const Step& step, std::vector<std::string>& pieces);

    std::vector<Step> steps_;
    bool joins_with_spaces_ = false;  // without any decoder
};

}  // namespace colonnade
