#pragma once
// Sample: what one row of a data set becomes once tokenised. A token tree of depth one: a stem that all branches share,
// then the branches one after the other. SFT and pretraining have an empty stem and one branch; a preference pair has
// the prompt as stem and two answers as branches, the chosen one first, and a ranking has as many branches as answers,
// the best one first. Positions, masks and targets all derive from this one shape (data/batch.h).

#include <cstdint>
#include <vector>

namespace colonnade {

struct Sample {
    std::vector<int32_t> tokens;  ///< stem, branch 0, branch 1, ...
    std::vector<float>
        weights;  ///< weight with which tokens[i] is learned (predicted from what it follows); 0: not learned
    std::vector<int32_t>
        branch_begins;  ///< index of each branch's first token, ascending; the stem is [0, branch_begins[0])
    float margin = 0;   ///< of a pair: by how much the chosen answer is to score above the rejected one

    int64_t length() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace colonnade
