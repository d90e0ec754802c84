#include "train/step/best_model.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

namespace colonnade {

BestModel::BestModel(BestRules rules, BestRecord record) : rules_(std::move(rules)), record_(std::move(record)) {
    if (record_.metric != rules_.metric || record_.greater_is_better != rules_.greater_is_better) record_ = {};
}

bool BestModel::better(double value) const {
    return rules_.greater_is_better ? value > record_.value : value < record_.value;
}

bool BestModel::add(int64_t step, double value) {
    if (rules_.metric.empty()) return false;
    const bool first = record_.metric.empty();
    if (first) {
        record_.metric = rules_.metric, record_.greater_is_better = rules_.greater_is_better;
        forget();
    }
    const bool improved = first || (better(value) && std::abs(value - record_.value) > rules_.threshold);
    record_.without_improvement = improved ? 0 : record_.without_improvement + 1;
    if (!better(value)) return false;
    record_.value = value;
    record_.step = step;
    record_.output_dir.clear();
    return true;
}

void BestModel::forget() {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    record_.value = rules_.greater_is_better ? -infinity : infinity;
    record_.step = 0;
    record_.output_dir.clear();
}

std::string BestModel::text() const {
    if (rules_.patience == 0 || record_.without_improvement == 0) return "";
    return fmt::format("{} of {} evaluations without improvement", record_.without_improvement, rules_.patience);
}

}  // namespace colonnade
