#pragma once
// TokenStore: a tokenised data set, in memory and as an HDF5 file. The file is a cache. Its key is a hash of all inputs
// (data/store/build_store.h), so that a stale file is never used, and its content is checked when it is opened.
//
// File (HDF5, written once, atomically):
//   tokens         i32 [tokens]      all samples end to end, each stem, branch 0, branch 1, ...
//   weights        f32 [tokens]      loss mask: weight of each token as a target
//   sample_begins  i64 [samples + 1] sample i is tokens [begins[i], begins[i + 1])
//   branches       i32 [*]           branch begins of all samples end to end, relative to the sample
//   branch_begins  i64 [samples + 1] sample i has branches [begins[i], begins[i + 1])
//   margins        f32 [samples]     of pairs: by how much the chosen answer should score above the rejected one
//   source_files   i32 [samples]     index into the statistics' files
//   source_lines   i64 [samples]     number of the line or row, from 1
//   settings, statistics  u8 [*]     JSON text (as datasets: HDF5 attributes are limited to 64 KiB)
//   attributes     format, format_version, key, samples, tokens, payload_sha256 (over all datasets in this order)
//
// Memory: 8 bytes per token and about 50 per sample.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/samples/sample.h"
#include "data/store/store_statistics.h"

namespace colonnade {

class TokenStore {
  public:
    /// Increased whenever the file's layout changes, or the samples that the same settings give.
    static constexpr int64_t format_version = 3;

    /// Appends a sample from line `line` of statistics.files[file].
    void add(const Sample& sample, int32_t file, int64_t line);
    /// Appends all samples of `later`, which has the same list of files, and adds its row counts.
    void append(const TokenStore& later);
    /// Sets the statistics that depend on the samples: samples (also by file), tokens, learned_tokens, pairs, lengths.
    void count_samples();

    int64_t size() const { return static_cast<int64_t>(source_files_.size()); }
    int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }
    size_t bytes() const;  ///< memory in use

    Sample sample(int64_t i) const;
    std::vector<int64_t> lengths() const;        ///< tokens of each sample, for the packer
    std::vector<double> target_weights() const;  ///< target_weight() of each sample
    std::vector<double> pairs() const;           ///< pair_count() of each sample
    const std::vector<int64_t>& branch_offsets() const { return branch_begins_; }  ///< sample i has [o[i], o[i + 1])
    std::string place(int64_t i) const;  ///< "path:line" or "path: row N" of sample i
    int64_t dataset(int64_t i) const;    ///< index of the data set of sample i

    /// Returns these samples, in this order; one may be taken several times. Statistics that depend on samples are those
    /// of the selection; rows and notes are those of the whole store.
    TokenStore select(const std::vector<int64_t>& samples) const;
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
    template <typename Store, typename Body>
    static void for_each_dataset(Store& store, Body&& body);
    void count_pairs();
    void read(const std::string& path, const std::string& key);
    void check(const std::string& path, int64_t vocab_size) const;

    std::vector<int32_t> tokens_;
    std::vector<float> weights_;
    std::vector<int64_t> sample_begins_ = {0};
    std::vector<int32_t> branches_;
    std::vector<int64_t> branch_begins_ = {0};
    std::vector<float> margins_;
    std::vector<int32_t> source_files_;
    std::vector<int64_t> source_lines_;
};

}  // namespace colonnade
