#pragma once
// Curve: the values of a metric over the steps of a run, in bounded memory. Consecutive values share a span, which
// remembers the least and the greatest of them with their steps, and their mean. If there are too many spans, each two
// neighbours become one. So a spike of one step is in every picture, however long the run:
//
//     up to most_spans values       every value
//     above                         of 2, 4, 8, ... neighbours the least, the greatest and the mean

#include <cstddef>
#include <cstdint>
#include <vector>

namespace colonnade {

struct CurvePoint {
    double step = 0, value = 0;
    bool operator==(const CurvePoint&) const = default;
};

class Curve {
  public:
    static constexpr size_t most_spans = 2048;

    /// Steps ascend. A value that is not finite is counted and not kept.
    void add(double step, double value);

    bool empty() const { return spans_.empty(); }
    int64_t size() const { return size_; }  ///< finite values
    int64_t not_finite() const { return not_finite_; }
    // Exact, of all values; of equal ones the first. Only if there is a value.
    const CurvePoint& first() const { return first_; }
    const CurvePoint& last() const { return last_; }
    const CurvePoint& least() const { return least_; }
    const CurvePoint& greatest() const { return greatest_; }

    /// Points to draw, in order of their steps: all values if these are at most `spans`, else the least and the greatest of
    /// each of `spans` parts, and the first and the last value. At most 2 * spans + 2.
    std::vector<CurvePoint> outline(size_t spans) const;
    /// The mean of each of `spans` parts at the mean of its steps; fewer if there are fewer values.
    std::vector<CurvePoint> means(size_t spans) const;

  private:
    struct Span {
        CurvePoint least, greatest;
        double steps = 0, values = 0;  ///< sums
        int64_t count = 0;
    };
    static void join(Span& into, const Span& next);
    /// The spans in at most `count` groups of neighbours.
    std::vector<Span> grouped(size_t count) const;

    std::vector<Span> spans_;
    int64_t width_ = 1;  ///< values in a full span
    int64_t size_ = 0, not_finite_ = 0;
    CurvePoint first_, last_, least_, greatest_;
};

}  // namespace colonnade
