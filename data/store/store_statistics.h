#pragma once
// StoreStatistics: what became of every row of a data set on its way into the token store. Every dropped row is counted
// here: rows = samples + the counts of all notes that drop a row. Of rows with several scored answers, notes and samples
// count the answers.

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/rows/files/row_source.h"
#include "data/samples/row_note.h"

namespace colonnade {

/// Number of rows with one note, and the first few of them as "path:line".
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

/// A RowCount for every RowNote.
class RowNoteCounts {
  public:
    RowCount& operator[](RowNote note) { return counts_[static_cast<size_t>(note)]; }
    const RowCount& operator[](RowNote note) const { return counts_[static_cast<size_t>(note)]; }
    /// Counts the row at `place`. A dropped row counts only under the notes that drop it.
    void add(const RowNotes& notes, const std::string& place);
    void add(const RowNoteCounts& later);

  private:
    std::array<RowCount, row_notes.size()> counts_;
};

/// In how many rows each column stood that was not used. Memory is bounded: a file may have a new key in every row.
class UnusedColumns {
  public:
    static constexpr size_t names_kept = 100;
    void add(const std::vector<std::string>& names) {
        for (const std::string& name : names) add(name, 1);
    }
    void add(const UnusedColumns& later) {
        for (const auto& [name, rows] : later.rows_) add(name, rows);
    }
    /// Column: number of rows. "(others)" stands for those past the first names_kept names.
    const std::map<std::string, int64_t>& rows() const { return rows_; }

    void add(const std::string& name, int64_t rows) {
        const bool kept = rows_.size() < names_kept || rows_.contains(name);
        rows_[kept ? name : "(others)"] += rows;
    }

  private:
    std::map<std::string, int64_t> rows_;
};

/// Nearest-rank percentiles of the samples' lengths in tokens.
struct LengthTable {
    int64_t min = 0, p5 = 0, p25 = 0, p50 = 0, p75 = 0, p95 = 0, p99 = 0, max = 0;
};
LengthTable length_table(std::vector<int64_t> lengths);

/// The scored answers of a data set. Answers that were dropped are in no group.
struct RewardCounts {
    int64_t answers = 0, groups = 0;
    int64_t groups_of_one = 0;    ///< with one answer that has a reward: its advantage is 0
    int64_t groups_of_equal = 0;  ///< all of the same reward: their advantages are 0
    int64_t unscored = 0;         ///< answers without a reward, or with a null advantage
    int64_t given = 0;            ///< answers whose advantage the row gives
    double reward = 0, reward_std = 0;
};

/// What a teacher says about the learned tokens.
struct TeacherCounts {
    int64_t tokens = 0, entries = 0;  ///< lists, and what they hold
    int64_t longest = 0;              ///< entries of a list
    int64_t holding = 0;              ///< lists that hold the token which the text has
    double probability = 0;           ///< sum over all lists: what the teacher gives to their tokens together
    int64_t words = 0;                ///< of the file that has the lists (data/store/teacher_file.h)
};

struct StoreStatistics {
    struct File {
        std::string path = {}, type = {};  ///< type: the row format in use (data/rows/rows.h)
        std::string columns = {};          ///< RowReader::found_columns()
        int64_t rows = 0, samples = 0;
        int64_t dataset = 0;                     ///< index of the data set that it belongs to
        Numbering numbering = Numbering::lines;  ///< of its rows
    };
    std::vector<File> files;
    std::vector<std::string> left_out;  ///< what was found beside them and not read
    int64_t rows = 0, samples = 0;
    int64_t tokens = 0;
    int64_t learned_tokens = 0;  ///< of all sequences
    double learned_weight = 0;   ///< sum of their weights (data/samples/sample.h)
    // Samples with answers to compare:
    int64_t pairs = 0, answers = 0;  ///< number of such samples, and of their answers
    int64_t pair_tokens = 0;         ///< their tokens, with the prompt once
    int64_t repeated_tokens = 0;     ///< their tokens if every answer repeated the prompt
    int64_t scored_rows = 0, scored_answers = 0, kept_answers = 0;  ///< rows with scores, and their answers
    int64_t longest_row = 0;  ///< in tokens, before anything was dropped or truncated
    LengthTable lengths;
    std::vector<RewardCounts> rewards;  ///< of each data set, if its answers have scores; else empty
    TeacherCounts teacher;
    RowNoteCounts notes;
    UnusedColumns unused_columns;
    std::vector<std::string> markers_spelled_out;  ///< markers of the chat template without a piece in the tokenizer
};

/// Adds the counts of rows that come later in the same files: rows, answers with scores, longest_row, notes and unused
/// columns.
/// TokenStore::count_samples() sets what depends on the samples themselves.
void add_rows(StoreStatistics& statistics, const StoreStatistics& later);

std::string to_json_text(const StoreStatistics& statistics);
/// Reads what to_json_text wrote. Throws Exit::data with "where: ..." for anything else.
StoreStatistics statistics_from_json(const std::string& text, const std::string& where);

}  // namespace colonnade
