#include "data/store/store_statistics.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/device/error.h"

namespace colonnade {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RowCount, count, first)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LengthTable, min, p5, p25, p50, p75, p95, p99, max)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StoreStatistics::File, path, type, columns, rows, samples, dataset, numbering)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RewardCounts, answers, groups, groups_of_one, groups_of_equal, unscored, given,
                                   reward, reward_std)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TeacherCounts, tokens, entries, longest, holding, probability, words)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StoreStatistics, files, left_out, rows, samples, tokens, learned_tokens,
                                   learned_weight, pairs, answers, repeated_tokens, pair_tokens, scored_rows,
                                   scored_answers, kept_answers, longest_row, lengths, rewards, teacher,
                                   markers_spelled_out)

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

void RowNoteCounts::add(const RowNotes& notes, const std::string& place) {
    for (const RowNoteInfo& info : row_notes)
        if (notes.has(info.note) && notes.dropped() == (info.effect == NoteEffect::dropped))
            (*this)[info.note].add(place);
}

void RowNoteCounts::add(const RowNoteCounts& later) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i].add(later.counts_[i]);
}

void add_rows(StoreStatistics& statistics, const StoreStatistics& later) {
    statistics.rows += later.rows;
    statistics.scored_rows += later.scored_rows;
    statistics.scored_answers += later.scored_answers;
    statistics.kept_answers += later.kept_answers;
    statistics.longest_row = std::max(statistics.longest_row, later.longest_row);
    statistics.teacher.tokens += later.teacher.tokens;
    statistics.teacher.entries += later.teacher.entries;
    statistics.teacher.longest = std::max(statistics.teacher.longest, later.teacher.longest);
    statistics.teacher.holding += later.teacher.holding;
    statistics.teacher.probability += later.teacher.probability;
    statistics.notes.add(later.notes);
    statistics.unused_columns.add(later.unused_columns);
}

std::string to_json_text(const StoreStatistics& statistics) {
    nlohmann::json json = statistics;
    for (const RowNoteInfo& info : row_notes) json[info.key] = statistics.notes[info.note];
    json["unused_columns"] = statistics.unused_columns.rows();
    return json.dump();
}

StoreStatistics statistics_from_json(const std::string& text, const std::string& where) {
    // No integer holds a real number of 2^63 or more.
    const auto within_integers = [](int, auto, const nlohmann::json& value) {
        if (value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63)
            throw nlohmann::json::type_error::create(302, fmt::format("{} is too large", value.dump()), &value);
        return true;
    };
    try {
        const auto json = nlohmann::json::parse(text, within_integers);
        auto statistics = json.get<StoreStatistics>();
        for (const RowNoteInfo& info : row_notes) statistics.notes[info.note] = json.at(info.key).get<RowCount>();
        for (const auto& [name, rows] : json.at("unused_columns").items())
            statistics.unused_columns.add(name, rows.get<int64_t>());
        return statistics;
    } catch (const nlohmann::json::exception& e) {
        fail(Exit::data, "{}: unreadable statistics: {}", where, e.what());
    }
}

}  // namespace colonnade
