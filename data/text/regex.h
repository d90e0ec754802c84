#pragma once
// Regex: a regular expression of a tokenizer.json. The `tokenizers` package gives it to Oniguruma (Ruby's syntax,
// Unicode 16); here PCRE2 matches it, translated.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/split_pattern.h"

struct pcre2_real_code_8;

namespace colonnade {

class Regex {
  public:
    /// Throws Exit::data with "where: the pattern '...': ..." for a pattern that is damaged, or that has a construct
    /// whose meaning under PCRE2 would differ.
    Regex(std::string_view pattern, const std::string& where);

    /// Appends the matches in `text`, from left to right without overlap, each shifted by `offset`. Matches can be
    /// empty. Thread-safe. Throws Exit::data if matching takes too many steps, too much memory or time.
    void find(std::string_view text, uint32_t offset, std::vector<Piece>& out) const;
    /// `text` with each match replaced by `content`.
    std::string replace(std::string_view text, std::string_view content) const;

  private:
    std::string name_;  // for errors
    std::shared_ptr<pcre2_real_code_8> code_;
};

/// `pattern` in PCRE2's syntax. Throws as the constructor does.
std::string pcre2_pattern(std::string_view pattern, const std::string& where);

}  // namespace colonnade
