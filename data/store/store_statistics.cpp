#include "data/store/store_statistics.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/device/error.h"

namespace colonnade {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RowCount, count, first)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LengthTable, min, p5, p25, p50, p75, p95, p99, max)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StoreStatistics::File, path, type, rows, samples)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StoreStatistics, files, rows, samples, tokens, learned_tokens, pairs, answers,
                                   repeated_tokens, pair_tokens, longest_row, lengths, truncated, dropped_too_long,
                                   dropped_nothing_learned, dropped_no_room, dropped_same_answers,
                                   dropped_difference_cut, no_end_token, double_bos, marker_in_text, empty_answer,
                                   no_prompt, markers_spelled_out)

LengthTable length_table(std::vector<int64_t> lengths) {
    if (lengths.empty()) return {};
    std::sort(lengths.begin(), lengths.end());
    const auto percentile = [&](size_t percent) {
        return lengths[std::max<size_t>(1, (lengths.size() * percent + 99) / 100) - 1];
    };
    return {lengths.front(), percentile(5),  percentile(25), percentile(50),
            percentile(75),  percentile(95), percentile(99), lengths.back()};
}

void RowCount::add(const RowCount& later) {
    for (const auto& place : later.first) {
        if (first.size() < places_kept) first.push_back(place);
    }
    count += later.count;
}

void add_rows(StoreStatistics& statistics, const StoreStatistics& later) {
    statistics.rows += later.rows;
    statistics.longest_row = std::max(statistics.longest_row, later.longest_row);
    using S = StoreStatistics;
    for (const auto rows : {&S::truncated, &S::dropped_too_long, &S::dropped_nothing_learned, &S::dropped_no_room,
                            &S::dropped_same_answers, &S::dropped_difference_cut, &S::no_end_token, &S::double_bos,
                            &S::marker_in_text, &S::empty_answer, &S::no_prompt}) {
        (statistics.*rows).add(later.*rows);
    }
}

std::string to_json_text(const StoreStatistics& statistics) {
    return nlohmann::json(statistics).dump();
}

StoreStatistics statistics_from_json(const std::string& text, const std::string& where) {
    try {
        return nlohmann::json::parse(text).get<StoreStatistics>();
    } catch (const nlohmann::json::exception& e) {
        fail(Exit::data, "{}: unreadable statistics: {}", where, e.what());
    }
}

}  // namespace colonnade
