#pragma once
// Normalizer: the "normalizer" of a tokenizer.json.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/charsmap.h"
#include "data/text/text_start.h"
#include "data/text/tokenizer_json.h"
#include "data/text/unicode.h"

namespace colonnade {

class Normalizer {
  public:
    /// Throws Exit::data with "where: ..." for a damaged one, and for a kind that Colonnade does not know, by its name.
    Normalizer(const Json& json, const std::string& where);

    bool changes_nothing() const { return steps_.empty(); }
    bool spells_bytes() const;  ///< has a ByteLevel step
    /// `start`: text that continues another gets nothing put in front.
    std::string apply(std::string_view text, TextStart start = TextStart::document) const;

  private:
    enum class Kind {
        form,
        replace,
        prepend,
        strip,
        lowercase,
        strip_accents,
        byte_level,
        clean_text,
        isolate_chinese,
        strip_nonspacing,
        nmt,
        precompiled
    };
    struct Step {
        Kind kind;
        NormalForm form = NormalForm::nfc;
        std::string content;  // to prepend
        bool left = false, right = false;
        std::shared_ptr<const Replacement> replacement;
        std::shared_ptr<const Charsmap> charsmap;
    };
    void read(const Json& json, const std::string& where, int depth);
    void read_bert(const Json& json, const std::string& where);
    static std::string apply(const Step& step, std::string_view text, TextStart start);

    std::vector<Step> steps_;
};

/// `text` with each byte as its byte-level character.
std::string spell_bytes(std::string_view text);

}  // namespace colonnade
