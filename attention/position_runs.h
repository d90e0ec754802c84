#pragma once
// PositionRuns: the rows of a packed row as runs along which the position rises by one. A prefix tree has a run for each
// of its branches, so that what a sliding window hides is found run by run instead of row by row.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace colonnade {

/// Rows [begin, end).
struct RowRange {
    int32_t begin, end;
};

class PositionRuns {
  public:
    /// Keeps a view of the positions, [rows].
    explicit PositionRuns(std::span<const int32_t> positions) : position_(positions), run_of_(positions.size()) {
        for (size_t i = 0; i < positions.size(); ++i) {
            const auto row = static_cast<int32_t>(i);
            if (i > 0 && positions[i] == positions[i - 1] + 1)
                runs_.back().end = row + 1;
            else
                runs_.push_back({row, row + 1});
            run_of_[i] = runs_.size() - 1;
        }
    }

    /// Visits the rows [begin, end), run by run: visit(within, past) with the rows whose position is below `limit`, and
    /// those after them. Either may be empty.
    template <typename Visit>
    void divide(int32_t begin, int32_t end, int64_t limit, Visit&& visit) const {
        if (begin >= end) return;
        for (size_t r = run_of_[static_cast<size_t>(begin)]; r < runs_.size() && runs_[r].begin < end; ++r) {
            const RowRange run{std::max(runs_[r].begin, begin), std::min(runs_[r].end, end)};
            const int64_t below = run.begin + limit - position_[static_cast<size_t>(run.begin)];
            const auto past = static_cast<int32_t>(std::clamp<int64_t>(below, run.begin, run.end));
            visit(RowRange{run.begin, past}, RowRange{past, run.end});
        }
    }

  private:
    std::span<const int32_t> position_;
    std::vector<RowRange> runs_;
    std::vector<size_t> run_of_;  ///< [rows]
};

}  // namespace colonnade
