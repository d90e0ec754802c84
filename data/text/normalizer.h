#pragma once
// Normalizer: the "normalizer" of a tokenizer.json.

#include <string>
#include <string_view>
#include <vector>

#include "data/text/text_start.h"
#include "data/text/unicode.h"
#include "engine/io/json.h"

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
    enum class Kind { form, replace, prepend, strip, lowercase, strip_accents, byte_level };
    struct Step {
        Kind kind;
        NormalForm form = NormalForm::nfc;
        std::string pattern, content;
        bool left = false, right = false;
    };
    void read(const Json& json, const std::string& where, int depth);

    std::vector<Step> steps_;
};

/// `text` with every `pattern`, from left to right, replaced by `content`.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);
/// `text` with each byte as its byte-level character.
std::string spell_bytes(std::string_view text);

// Fields of tokenizer.json. Errors name the field, as "where: field: ...".
std::string json_kind(const Json& json, const std::string& where);  ///< its "type"
std::string json_text(const Json& json, const char* key, const std::string& where);
bool json_flag(const Json& json, const char* key, bool otherwise, const std::string& where);
/// The parts of a Sequence, under `key`. Throws for one nested deeper than 8 levels.
const Json& json_sequence(const Json& json, const char* key, int depth, const std::string& where);
/// Reads a "pattern" into `text`. Returns whether it is a Regex, not a String.
bool json_pattern(const Json& json, std::string& text, const std::string& where);

}  // namespace colonnade
