#pragma once
// AnswerText: the text of an answer while its tokens arrive, for streaming. It hands out only text that later tokens
// cannot change: whole characters of UTF-8, and nothing that may be the beginning of a stop string. All pieces together
// are what the tokenizer makes of the whole answer, up to a stop string.

#include <string>
#include <vector>

#include "data/text/tokenizer.h"

namespace colonnade {

class AnswerText {
  public:
    /// The answer ends before the first of `stops` in its text. Empty ones are ignored.
    AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, SpecialTokens special = SpecialTokens::skip);

    /// Returns the text that has become certain; may be empty.
    std::string add(int32_t token);
    /// Returns the rest, when no token follows.
    std::string finish();
    /// A stop string has been found: the text is complete.
    bool stopped() const { return stopped_; }

  private:
    std::string text_of(size_t count) const;  ///< of recent_
    std::string release(std::string text);

    const Tokenizer& tokenizer_;
    std::vector<std::string> stops_;
    SpecialTokens special_;
    /// Tokens whose text is not certain yet, behind some whose text is: a decoder may treat the first token of a text
    /// in another way.
    std::vector<int32_t> recent_;
    size_t certain_ = 0;  ///< of recent_
    std::string held_;    ///< text that may begin a stop string
    bool stopped_ = false;
};

}  // namespace colonnade
