#pragma once
// AddedTokens: cuts the added tokens of a tokenizer.json out of a text, as the `tokenizers` package does.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/span.h"

namespace colonnade {

struct AddedToken {
    std::string content;
    std::string decoded;  ///< what its id decodes to: the normalized content if `normalized`
    int32_t id = -1;
    bool special = false, normalized = false, single_word = false, left_strip = false, right_strip = false;
};

/// A part of a text: an added token, or text between them (`token` is null).
struct TextPart {
    size_t begin, end;
    const AddedToken* token;
};

class AddedTokens {
  public:
    /// Looks for `spelling` in texts. The first of two tokens with one spelling counts. `token` outlives this.
    void add(std::string_view spelling, const AddedToken* token);
    /// Appends the parts of `text`: the longest token at the leftmost place first. Special tokens are not found if they
    /// touch one of the `plain` spans (ascending, apart). Returns whether one was passed over for that.
    bool split(std::string_view text, std::span<const Span> plain, std::vector<TextPart>& parts) const;
    bool empty() const { return nodes_.size() == 1; }

  private:
    struct Match {
        const AddedToken* token;
        size_t end;
    };
    Match longest_at(std::string_view text, size_t begin) const;

    struct Node {
        const AddedToken* token = nullptr;
        std::vector<std::pair<char, uint32_t>> children;
    };
    std::vector<Node> nodes_{1};
    uint32_t first_[256] = {};  // node of a first byte; 0: none
};

}  // namespace colonnade
