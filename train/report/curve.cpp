#include "train/report/curve.h"

#include <algorithm>
#include <cmath>

namespace colonnade {

void Curve::join(Span& into, const Span& next) {
    if (next.least.value < into.least.value) into.least = next.least;
    if (next.greatest.value > into.greatest.value) into.greatest = next.greatest;
    into.steps += next.steps;
    into.values += next.values;
    into.count += next.count;
}

void Curve::add(double step, double value) {
    if (!std::isfinite(value)) {
        ++not_finite_;
        return;
    }
    const CurvePoint point{step, value};
    if (size_++ == 0) first_ = least_ = greatest_ = point;
    last_ = point;
    if (value < least_.value) least_ = point;
    if (value > greatest_.value) greatest_ = point;

    const Span span{.least = point, .greatest = point, .steps = step, .values = value, .count = 1};
    if (!spans_.empty() && spans_.back().count < width_) return join(spans_.back(), span);
    if (spans_.size() == most_spans) {
        spans_ = grouped(most_spans / 2);
        width_ *= 2;
    }
    spans_.push_back(span);
}

std::vector<Curve::Span> Curve::grouped(size_t count) const {
    const size_t size = (spans_.size() + count - 1) / std::max<size_t>(count, 1);
    std::vector<Span> groups;
    for (size_t i = 0; i < spans_.size(); ++i)
        if (i % size == 0)
            groups.push_back(spans_[i]);
        else
            join(groups.back(), spans_[i]);
    return groups;
}

std::vector<CurvePoint> Curve::outline(size_t spans) const {
    if (empty()) return {};
    std::vector<CurvePoint> points = {first_};
    const auto add = [&](const CurvePoint& point) {
        if (point.step > points.back().step) points.push_back(point);
    };
    for (const Span& span : grouped(spans)) {
        add(span.least.step <= span.greatest.step ? span.least : span.greatest);
        add(span.least.step <= span.greatest.step ? span.greatest : span.least);
    }
    add(last_);
    return points;
}

std::vector<CurvePoint> Curve::means(size_t spans) const {
    std::vector<CurvePoint> points;
    for (const Span& span : grouped(spans)) {
        const auto count = static_cast<double>(span.count);
        points.push_back({span.steps / count, span.values / count});
    }
    return points;
}

}  // namespace colonnade
