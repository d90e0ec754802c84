#pragma once
// Which parameters take Muon if the learner is asked for it: the matrices of the blocks. All others take AdamW.

#include <vector>

#include "engine/ranks/communicator.h"
#include "train/model/parameters.h"

namespace colonnade {

inline bool takes_muon(const Parameter& p) {
    return p.shape.size() == 2 && p.in_block();
}

/// The elements that take AdamW beside Muon: from the first of neighbours to the next matrix.
inline std::vector<Range> ranges_of_adamw(const ParameterList& list) {
    std::vector<Range> ranges;
    bool open = false;
    for (const Parameter& p : list.all()) {
        if (open == !takes_muon(p)) continue;
        if (open)
            ranges.back().end = p.begin;
        else
            ranges.push_back({p.begin, list.size()});
        open = !open;
    }
    return ranges;
}

}  // namespace colonnade
