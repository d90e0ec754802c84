#pragma once
// What became of every row of a data set on its way into the token store: nothing is dropped without being counted
// here. rows = samples + the dropped_* counts.

#include <cstdint>
#include <string>
#include <vector>

namespace colonnade {

/// Rows of one kind: how many, and the first few as "path:line".
struct RowCount {
    static constexpr size_t places_kept = 5;
    int64_t count = 0;
    std::vector<std::string> first;

    void add(const std::string& place) {
        if (first.size() < places_kept) first.push_back(place);
        ++count;
    }
    void add(const RowCount& later);
};

/// Nearest-rank percentiles of the samples' lengths in tokens.
struct LengthTable {
    int64_t min = 0, p5 = 0, p25 = 0, p50 = 0, p75 = 0, p95 = 0, p99 = 0, max = 0;
};
LengthTable length_table(std::vector<int64_t> lengths);

struct StoreStatistics {
    struct File {
        std::string path, type;  ///< type: the convention found (data/rows/rows.h)
        int64_t rows = 0, samples = 0;
    };
    std::vector<File> files;
    int64_t rows = 0, samples = 0;
    int64_t tokens = 0;
    double learned_tokens = 0;  ///< sum of the targets' weights (data/packing/batch.h)
    // Of samples with two answers or more:
    int64_t pairs = 0, answers = 0;  ///< how many samples, their branches
    int64_t pair_tokens = 0;         ///< with the prompt once
    int64_t repeated_tokens = 0;     ///< if every answer had the prompt before it
    int64_t longest_row = 0;         ///< tokens, before anything was dropped or truncated
    LengthTable lengths;
    RowCount truncated;  ///< cut to the maximum length and kept
    RowCount dropped_too_long, dropped_nothing_learned;
    RowCount dropped_no_room, dropped_same_answers,
        dropped_difference_cut;                         ///< preferences only (data/samples/encode.h)
    RowCount no_end_token, double_bos, marker_in_text;  ///< suspicious, but kept (data/samples/encode.h)
    RowCount empty_answer, no_prompt;                   ///< preferences only, suspicious
    std::vector<std::string> markers_spelled_out;       ///< of the chat template, which the tokenizer has no piece for
};

/// Adds the row counts of rows that come later in the same files: rows, longest_row and every RowCount. What follows
/// from the samples themselves is TokenStore::count_samples()'s.
void add_rows(StoreStatistics& statistics, const StoreStatistics& later);

std::string to_json_text(const StoreStatistics& statistics);
/// Throws Exit::data, beginning with `where`, for anything that to_json_text did not write.
StoreStatistics statistics_from_json(const std::string& text, const std::string& where);

}  // namespace colonnade
