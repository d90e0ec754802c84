#pragma once
// TokenStore: a tokenised data set, in memory and as an HDF5 file. The file is a cache. Its key is a hash of all inputs
// (data/store/build_store.h), so that a stale file is never used, and its content is checked when it is opened.
//
// File (HDF5, written once, atomically). A sequence is stored as data/samples/sample.h has it, by what it does not share
// with the one before. "x_begins" of n things has n + 1 entries; thing i has x [begins[i], begins[i + 1]).
//   tokens           i32 [tokens]         of all sequences end to end
//   token_begins     i64 [sequences + 1]
//   shared           i32 [sequences]      tokens in common with the sequence before it in the sample
//   spans            i32 [spans, 2]       learned tokens [begin, end) of the whole sequence, and ...
//   span_weights     f32 [spans]          ... their weight as targets
//   span_begins      i64 [sequences + 1]
//   advantages       f32 [sequences]      of answers that a model wrote, and ...
//   rewards          f32 [sequences]      ... the reward as it was given, or NaN; both empty if no sequence has one
//   old_logps, sampled_logps, reference_logps  f32 [learned tokens], NaN if unknown; each empty if no sequence has one
//   teacher_places   i64 [sequences]      where the lists of a teacher begin in the file beside (data/store/teacher_file.h),
//   teacher_words    i32 [sequences]      and how long they are; each empty if no sequence has any
//   learned_begins   i64 [sequences + 1]  the learned tokens of each sequence
//   sequence_begins  i64 [samples + 1]
//   pairs            i32 [pairs, 2]       numbers of the better and the worse sequence within the sample, and ...
//   margins          f32 [pairs]          ... by how much the better one should score above the other, and ...
//   pair_weights     f32 [pairs]          ... how much the pair counts in the loss
//   pair_begins      i64 [samples + 1]
//   source_files     i32 [samples]        index into the statistics' files
//   source_lines     i64 [samples]        number of the line or row, from 1
//   notes            i32 [samples]        RowNotes::bits() of that row, or of that answer of it
//   settings, statistics  u8 [*]          JSON text (as datasets: HDF5 attributes are limited to 64 KiB)
//   attributes       format, format_version, key, samples, tokens, payload_sha256 (over all datasets in this order)
//
// Memory: 4 bytes per token and about 60 per sample of one sequence.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/samples/prefix_order.h"
#include "data/samples/sample.h"
#include "data/store/store_statistics.h"

namespace colonnade {

class TokenStore {
  public:
    /// Increased whenever the file's layout changes, or the samples that the same settings give.
    static constexpr int64_t format_version = 7;

    /// Appends a sample from line `line` of statistics.files[file]. `notes`: of that row.
    void add(const Sample& sample, int32_t file, int64_t line, RowNotes notes = {});
    /// Appends all samples of `later`, which has the same list of files, and adds its row counts.
    void append(const TokenStore& later);
    /// Sets advantage and reward (NaN: none) of every sequence.
    void set_scores(std::vector<float> advantages, std::vector<float> rewards);
    /// Adds `words` to the places of all lists of a teacher.
    void move_teacher(int64_t words);
    /// Sets the statistics that depend on the samples: samples (also by file), tokens, learned_*, pairs, lengths.
    void count_samples();

    int64_t size() const { return static_cast<int64_t>(source_files_.size()); }
    int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }
    size_t bytes() const;  ///< memory in use

    Sample sample(int64_t i) const;
    std::vector<int64_t> lengths() const;        ///< tokens of each sample, for the packer
    std::vector<int64_t> visible_pairs() const;  ///< visible_pairs() of each sample, for PackSchedule
    std::vector<double> target_weights() const;  ///< target_weight() of each sample
    std::vector<PairTotals> pairs() const;       ///< pair_totals() of each sample
    /// Sample i has sequences [o[i], o[i + 1]).
    const std::vector<int64_t>& sequence_offsets() const { return sequence_begins_; }
    int64_t learned_count() const { return learned_begins_.back(); }  ///< learned tokens of all sequences
    /// Sample i has the learned tokens [o[i], o[i + 1]) of all, in order.
    std::vector<int64_t> learned_offsets() const;
    /// The log-probabilities of all learned tokens, in order. The list may end early: what follows is not known.
    const std::vector<float>& logps(std::vector<float> GivenLogps::*of) const { return logps_.*of; }
    /// Replaces them in memory, with a number for each learned token or with none.
    void set_logps(std::vector<float> GivenLogps::*of, std::vector<float> logps);
    /// The order of the samples' leading sequences, the first of each, and what they have in common.
    PrefixOrder prefix_order() const;
    PrefixSharing prefix_sharing(const PrefixOrder& order) const;
    std::string place(int64_t i) const;  ///< "path:line" or "path: row N" of sample i
    int64_t dataset(int64_t i) const;    ///< index of the data set of sample i
    RowNotes notes(int64_t i) const { return RowNotes::of_bits(notes_[static_cast<size_t>(i)]); }

    /// Returns these samples, in this order; one may be taken several times. Statistics that depend on samples are those
    /// of the selection; rows and notes are those of the whole store.
    TokenStore select(const std::vector<int64_t>& samples) const;
    /// The same store with the samples of parts[i] in place of sample i, if there are any.
    TokenStore divided(const std::vector<std::vector<Sample>>& parts) const;
    /// The samples for which `keep(i)` is true, in order.
    TokenStore subset(const std::function<bool(int64_t)>& keep) const;

    /// Writes the file: temporary name, fsync, rename. Throws Exit::storage.
    void write(const std::string& path, const std::string& key) const;
    /// Opens and checks a file: format, key, sizes, hash, order of every index, ids in [0, vocab_size). Throws
    /// Exit::data with the file, what was found and expected, and the advice to delete the file.
    static TokenStore open(const std::string& path, const std::string& key, int64_t vocab_size);

    std::string settings;  ///< JSON text of the inputs of the key
    StoreStatistics statistics;

  private:
    template <typename Body, typename... Stores>
    static void for_each_dataset(Body&& body, Stores&... stores);
    void add_given(const Sequence& sequence);
    Sequence sequence(size_t s) const;
    void count_pairs();
    int64_t length_of_sample(size_t i) const;
    template <typename Body>
    auto with_leading(Body&& body) const;
    void read(const std::string& path, const std::string& key);
    void check(const std::string& path, int64_t vocab_size) const;

    std::vector<int32_t> tokens_;
    std::vector<int64_t> token_begins_ = {0};
    std::vector<int32_t> shared_;
    std::vector<int32_t> spans_;
    std::vector<float> span_weights_;
    std::vector<int64_t> span_begins_ = {0};
    std::vector<float> advantages_, rewards_;
    GivenLogps logps_;
    std::vector<int64_t> teacher_places_;
    std::vector<int32_t> teacher_words_;
    std::vector<int64_t> learned_begins_ = {0};
    std::vector<int64_t> sequence_begins_ = {0};
    std::vector<int32_t> pairs_;
    std::vector<float> margins_, pair_weights_;
    std::vector<int64_t> pair_begins_ = {0};
    std::vector<int32_t> source_files_;
    std::vector<int64_t> source_lines_;
    std::vector<int32_t> notes_;
};

}  // namespace colonnade
