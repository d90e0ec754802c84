#include "data/packing/batch.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "data/packing/row_order.h"
#include "engine/device/planted_bug.h"

namespace colonnade {
namespace {

constexpr float unknown = std::numeric_limits<float>::quiet_NaN();

/// The samples of a pack, and the rows of their tokens, within the pack.
class PackLayout {
  public:
    /// `paths`: gets the rows of each sequence's tokens; may be null.
    PackLayout(const std::vector<const Sample*>& samples, Sharing sharing,
               std::vector<std::vector<int32_t>>* paths = nullptr)
        : samples_(samples), paths_(paths) {
        for (const Sample* sample : samples) {
            check_sample(*sample);
            for (const Sequence& sequence : sample->sequences) sequences_.push_back(&sequence);
        }
        terms_.resize(sequences_.size());
        last_rows_.assign(sequences_.size(), -1);
        if (paths_) paths_->resize(sequences_.size());
        if (sharing == Sharing::sample)
            for (size_t s = 0; s < sequences_.size(); ++s) place(s, sequences_[s]->shared, sequences_[s]->tokens);
        else
            place_by_trie();
        pop_to(0);
    }

    int64_t rows() const { return std::ssize(tokens_); }

    /// Writes the pack to flat rows from `first` on.
    void write(Batch& batch, int64_t first) const {
        const auto at = [&](auto& values) { return values.begin() + first; };
        std::ranges::copy(tokens_, at(batch.tokens));
        std::ranges::copy(positions_, at(batch.positions));
        std::ranges::copy(lts_, at(batch.mask.lts));
        if (planted_bug == PlantedBug::mask)
            for (auto lts = at(batch.mask.lts); lts != at(batch.mask.lts) + rows(); ++lts)
                *lts = std::min(*lts + 1, static_cast<int32_t>(batch.length));
        list_targets(batch, static_cast<int32_t>(first));
        size_t sequence = 0;
        for (const Sample* sample : samples_) {
            const auto number = static_cast<int32_t>(batch.samples++);
            const auto begin = static_cast<int32_t>(batch.sequences.size());
            for (int32_t rank = 0; rank < std::ssize(sample->sequences); ++rank, ++sequence) {
                const int32_t last = last_rows_[sequence];
                batch.sequences.push_back({number, rank, last < 0 ? -1 : last + static_cast<int32_t>(first)});
                batch.advantages.push_back(sequences_[sequence]->advantage);
                batch.rewards.push_back(sequences_[sequence]->reward.value_or(unknown));
            }
            for (const auto& [better, worse, margin, weight] : sample->pairs)
                batch.pairs.push_back({begin + better, begin + worse, margin, weight});
            batch.pair_begins.push_back(static_cast<int32_t>(batch.pairs.size()));
            const PairTotals pairs = pair_totals(sample->pairs);
            batch.pair_weight += pairs.weight;
            batch.ranking_weight += pairs.mean();
            batch.target_weight += target_weight(*sample);
        }
    }

  private:
    struct Term {
        int32_t token_row;  ///< of the learned token
        float weight;
    };

    void place_by_trie() {
        std::vector<std::vector<int32_t>> wholes;
        for (const Sample* sample : samples_)
            for (size_t s = 0; s < sample->sequences.size(); ++s) wholes.push_back(sample->whole(s));
        for (const auto& [sequence, shared] : row_order(wholes))
            place(sequence, shared, std::span(wholes[sequence]).subspan(static_cast<size_t>(shared)));
    }

    /// Ends the subtrees of the path's tokens from `depth` on.
    void pop_to(int64_t depth) {
        for (; std::ssize(path_) > depth; path_.pop_back())
            lts_[static_cast<size_t>(path_.back())] = static_cast<int32_t>(rows());
    }

    void place(size_t number, int64_t shared, std::span<const int32_t> tokens) {
        pop_to(shared);
        for (const int32_t token : tokens) {
            predicted_from_.push_back(path_.empty() ? -1 : path_.back());
            positions_.push_back(static_cast<int32_t>(path_.size()));
            path_.push_back(static_cast<int32_t>(rows()));
            tokens_.push_back(token);
        }
        lts_.resize(tokens_.size());
        if (!path_.empty()) last_rows_[number] = path_.back();
        if (paths_) (*paths_)[number] = path_;
        for (const auto& [begin, end, weight] : sequences_[number]->learned)
            for (int32_t i = begin; i < end; ++i) terms_[number].push_back({path_[static_cast<size_t>(i)], weight});
    }

    bool taught() const {
        return std::ranges::any_of(sequences_, [](const Sequence* sequence) { return !sequence->teacher.empty(); });
    }

    /// A target for every term, in order of the tokens, then of the sequences.
    void list_taught_targets(Batch& batch, int32_t first_row) const {
        struct Place {
            int32_t from, row;
            size_t sequence, term;
            auto operator<=>(const Place&) const = default;
        };
        std::vector<Place> places;
        for (size_t s = 0; s < terms_.size(); ++s)
            for (size_t t = 0; t < terms_[s].size(); ++t) {
                const int32_t row = terms_[s][t].token_row;
                places.push_back({predicted_from_[static_cast<size_t>(row)], row, s, t});
            }
        std::ranges::sort(places);
        std::vector<std::vector<int32_t>> targets(terms_.size());
        for (size_t s = 0; s < terms_.size(); ++s) targets[s].resize(terms_[s].size());
        for (const auto& [from, row, s, t] : places) {
            targets[s][t] = static_cast<int32_t>(batch.targets.size());
            batch.rows.push_back(first_row + from);
            batch.targets.push_back(tokens_[static_cast<size_t>(row)]);
            batch.weights.push_back(static_cast<double>(terms_[s][t].weight));
            require(sequences_[s]->teacher.tokens() == std::ssize(terms_[s]),
                    "a sequence has {} learned tokens and lists of a teacher for {}", terms_[s].size(),
                    sequences_[s]->teacher.tokens());
            batch.teacher.append(sequences_[s]->teacher, static_cast<int64_t>(t));
        }
        for (size_t s = 0; s < terms_.size(); ++s) {
            for (size_t t = 0; t < terms_[s].size(); ++t) {
                batch.term_targets.push_back(targets[s][t]);
                batch.term_weights.push_back(terms_[s][t].weight);
            }
            batch.term_begins.push_back(static_cast<int32_t>(batch.term_targets.size()));
        }
    }

    void list_targets(Batch& batch, int32_t first_row) const {
        if (taught()) return list_taught_targets(batch, first_row);
        std::vector<int32_t> target_of(tokens_.size(), -1), token_rows;
        for (const auto& terms : terms_)
            for (const auto& [row, weight] : terms) target_of[static_cast<size_t>(row)] = 0;
        for (size_t row = 0; row < target_of.size(); ++row)
            if (target_of[row] == 0) token_rows.push_back(static_cast<int32_t>(row));
        const auto from = [&](int32_t token_row) { return predicted_from_[static_cast<size_t>(token_row)]; };
        std::ranges::stable_sort(token_rows, [&](int32_t a, int32_t b) { return from(a) < from(b); });
        for (const int32_t row : token_rows) {
            target_of[static_cast<size_t>(row)] = static_cast<int32_t>(batch.targets.size());
            batch.rows.push_back(first_row + from(row));
            batch.targets.push_back(tokens_[static_cast<size_t>(row)]);
        }
        batch.weights.resize(batch.targets.size());
        for (size_t s = 0; s < terms_.size(); ++s) {
            list_logps(batch, sequences_[s]->logps);
            for (const auto& [row, weight] : terms_[s]) {
                const int32_t target = target_of[static_cast<size_t>(row)];
                batch.weights[static_cast<size_t>(target)] += static_cast<double>(weight);
                batch.term_targets.push_back(target);
                batch.term_weights.push_back(weight);
            }
            batch.term_begins.push_back(static_cast<int32_t>(batch.term_targets.size()));
        }
    }

    /// Appends what a sequence gives for its terms, which are the next ones. A list begins with the first that is given.
    static void list_logps(Batch& batch, const GivenLogps& given) {
        for (const auto of : GivenLogps::all) {
            if ((given.*of).empty()) continue;
            std::vector<float>& all = batch.logps.*of;
            all.resize(batch.term_targets.size(), unknown);
            all.insert(all.end(), (given.*of).begin(), (given.*of).end());
        }
    }

    const std::vector<const Sample*>& samples_;
    std::vector<const Sequence*> sequences_;
    std::vector<std::vector<Term>> terms_;  ///< of each sequence
    std::vector<int32_t> last_rows_;        ///< of each sequence
    // Of each row:
    std::vector<int32_t> tokens_, positions_, lts_, predicted_from_;
    std::vector<int32_t> path_;  ///< rows of the tokens of the sequence placed last
    std::vector<std::vector<int32_t>>* paths_;
};

}  // namespace

Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, const BatchOptions& options) {
    Batch batch;
    batch.packs = std::ssize(packs);
    std::vector<PackLayout> layouts;
    layouts.reserve(packs.size());
    int64_t longest = 1;
    for (const auto& pack : packs) {
        const PackLayout& layout = layouts.emplace_back(pack, options.sharing);
        longest = std::max(longest, layout.rows());
        batch.real_tokens += layout.rows();
    }
    batch.length = (longest + options.align - 1) / options.align * options.align;
    require(batch.tokens_total() <= INT32_MAX, "a batch of {} x {} tokens has rows beyond 32 bits", batch.packs,
            batch.length);

    batch.tokens.assign(static_cast<size_t>(batch.tokens_total()), 0);
    batch.positions.assign(batch.tokens.size(), 0);
    batch.mask.vectors = MaskVectors::lts;
    batch.mask.batch = batch.packs;
    batch.mask.rows = batch.mask.columns = batch.length;
    batch.mask.lts.assign(batch.tokens.size(), 0);  // padding: hidden from all rows
    for (size_t p = 0; p < layouts.size(); ++p) layouts[p].write(batch, static_cast<int64_t>(p) * batch.length);
    for (const auto of : GivenLogps::all)
        if (!(batch.logps.*of).empty()) (batch.logps.*of).resize(batch.term_targets.size(), unknown);
    require(std::ssize(batch.term_targets) <= INT32_MAX, "a batch has {} terms, more than 32 bits can number",
            batch.term_targets.size());
    return batch;
}

std::vector<std::vector<int32_t>> token_rows(const std::vector<const Sample*>& pack, Sharing sharing) {
    std::vector<std::vector<int32_t>> rows;
    const PackLayout layout(pack, sharing, &rows);
    return rows;
}

}  // namespace colonnade
