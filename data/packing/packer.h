#pragma once
// Packer: decides which samples share a row and the order of the rows. The plan of one epoch is
//
//     shuffle the samples -> cut into windows -> best-fit decreasing within each window -> shuffle the packs
//
// It is a pure function of (lengths, prefixes, settings, epoch): the same for any number of ranks and threads and on any
// platform, so that resuming needs only a step number. Sorting puts similar lengths next to each other; the windows and
// the last shuffle keep that from becoming a curriculum. Best-fit decreasing fills windows of 10,000 samples to about
// 99 % (Johnson 1973; for language models: arXiv 2404.10830).
//
// With the prefix order of the samples' leading sequences (the first sequence of each), rows share what these begin
// with. A row of samples s1, s2, ... in walk order computes
//
//     tokens = sum of lengths - sum of lcp(s[i - 1], s[i])
//
// That is an upper bound: samples of several sequences may have more in common than their leading ones. bfd brings
// together what has prefixes in common (data/packing/pack_units.h). It packs the units of each stem of depth d by best
// fit into rows of packing_length - d tokens, the deepest stems first. The emptiest row of a stem is packed again with
// the units of the stem above it, so that a tree that is too long for a row is cut where its parts share least; the
// other rows of all stems are filled with units of the root. sequential shares what is in a row by chance, none nothing.
//
// Bounds: any two rows that a stem makes of a window have more than packing_length - d tokens behind the stem. So at most
// one is not half full, and a stem with T tokens behind it is computed at most 1 + 2 T / (packing_length - d) times. In
// the data sets of docs/prefix_trees.md 0 to 20 % more tokens are computed than distinct prefixes. bfd closes a
// row once its samples represent most_represented times packing_length tokens, however few it computes: that bounds what
// grows with the number of samples or of learned tokens.
// Memory: up to 28 bytes a sample, 12 more in a plan, and 60 more while it is made. At 100M tokens that is 11 MB at most
// for samples of 1000 tokens, and 200 MB for samples of 50.

#include <cstdint>
#include <span>
#include <vector>

#include "data/packing/pack_units.h"
#include "data/samples/prefix_order.h"

namespace colonnade {

enum class PackStrategy {
    bfd,         ///< best-fit decreasing in windows
    sequential,  ///< samples in order; a new pack when the next sample does not fit
    none,        ///< one sample per pack
};

struct PackSettings {
    int64_t packing_length = 2048;  ///< tokens of a full pack
    PackStrategy strategy = PackStrategy::bfd;
    int64_t window = 10000;  ///< samples packed together by bfd
    uint64_t seed = 42;
    bool shuffle = true;  ///< false: no randomness, every epoch is the same (evaluation)
    int64_t min_shared =
        64;  ///< tokens in common for which bfd brings samples together (or as data/packing/pack_units.h says)
    int64_t most_represented = 64;  ///< UnitLimits::most_represented
};

struct PackPlan {
    std::vector<int64_t> samples;  ///< every sample exactly once, pack by pack; in walk order if prefixes are given
    std::vector<int32_t> shared;   ///< tokens that each has in common with the sample before it in its pack
    std::vector<int64_t> begins = {0};  ///< pack p is samples[begins[p], begins[p + 1])
    std::vector<int64_t> tokens;        ///< that pack p computes: sum of lengths - sum of shared
    int64_t represented = 0;            ///< sum of the lengths of all samples
    int64_t computed = 0;               ///< sum of tokens
    double fill = 0;                    ///< computed / (packs * packing_length)

    int64_t packs() const { return static_cast<int64_t>(begins.size()) - 1; }
    /// Samples of pack p; empty for p >= packs(), which pads the last step.
    std::span<const int64_t> pack(int64_t p) const;
    /// Part of the tokens that sharing saves: 0.75 if only a quarter is computed.
    double saved() const;
};

class Packer {
  public:
    /// `lengths`: tokens of each sample alone. `prefixes`: of the samples' leading sequences; none to share nothing.
    /// Throws Exit::config for settings out of range, or with the number of samples that are longer than a pack,
    /// Exit::data for 2^31 samples or more, and Exit::internal for prefixes that are not those of such samples.
    Packer(std::vector<int64_t> lengths, const PackSettings& settings, PrefixOrder prefixes = {});

    /// The plan of an epoch (0-based). O(n log n).
    PackPlan plan(int64_t epoch) const;

    const PackSettings& settings() const { return settings_; }
    const std::vector<int64_t>& lengths() const { return lengths_; }
    /// True if prefixes were given.
    bool shares() const { return shares_; }

  private:
    /// Fills in the samples, unit by unit in `order`, each into pack row_of[unit].
    void write(PackPlan& plan, const std::vector<int32_t>& order, const std::vector<int32_t>& row_of) const;

    PackSettings settings_;
    std::vector<int64_t> lengths_;
    PrefixOrder prefixes_;  // without sharing: 0, 1, 2, ... with nothing in common
    bool shares_;
    PackUnits units_;
};

/// Plans one epoch without sharing.
PackPlan plan_epoch(std::span<const int64_t> lengths, const PackSettings& settings, int64_t epoch);

}  // namespace colonnade
