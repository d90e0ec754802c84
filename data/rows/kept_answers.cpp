#include "data/rows/kept_answers.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace colonnade {

std::optional<KeptAnswers> parse_keep(const std::string& text) {
    constexpr std::string_view prefix = "above ";
    if (text == "best") return KeptAnswers{};
    if (!text.starts_with(prefix)) return std::nullopt;
    double above = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, above);
    if (error != std::errc() || stop != end || !std::isfinite(above)) return std::nullopt;
    return KeptAnswers{above};
}

void keep_answers(Row& row, const KeptAnswers& keep) {
    std::vector<double> ranks = row.scores;
    for (double& rank : ranks) rank = std::isnan(rank) ? -INFINITY : rank;
    const auto best = std::ranges::max_element(ranks) - ranks.begin();
    std::vector<Row> answers;
    std::vector<double> scores;
    for (size_t i = 0; i < ranks.size(); ++i) {
        const bool kept = keep.above ? ranks[i] > *keep.above : static_cast<std::ptrdiff_t>(i) == best;
        if (!kept || std::isnan(row.scores[i])) continue;
        answers.push_back(std::move(row.answers[i]));
        scores.push_back(row.scores[i]);
    }
    row.left_out = static_cast<int64_t>(ranks.size() - answers.size());
    row.answers = std::move(answers);
    row.scores = std::move(scores);
}

}  // namespace colonnade
