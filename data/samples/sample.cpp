#include "data/samples/sample.h"

#include <algorithm>
#include <cmath>

#include "engine/device/error.h"

namespace colonnade {

int64_t Sample::length() const {
    int64_t tokens = 0;
    for (const Sequence& s : sequences) tokens += std::ssize(s.tokens);
    return tokens;
}

std::vector<int32_t> Sample::whole(size_t number) const {
    std::vector<int32_t> path;
    for (size_t s = 0; s <= number; ++s) {
        path.resize(static_cast<size_t>(sequences[s].shared));
        path.insert(path.end(), sequences[s].tokens.begin(), sequences[s].tokens.end());
    }
    return path;
}

int64_t Sample::common() const {
    if (sequences.size() < 2) return 0;
    return std::min_element(sequences.begin() + 1, sequences.end(),
                            [](const Sequence& a, const Sequence& b) { return a.shared < b.shared; })
        ->shared;
}

int64_t visible_pairs(const Sample& sample) {
    int64_t pairs = 0;
    for (const Sequence& s : sample.sequences) pairs += visible_pairs(s.length(), s.shared);
    return pairs;
}

Sample unshared(const Sample& sample) {
    Sample apart = sample;
    for (size_t s = 0; s < sample.sequences.size(); ++s) {
        apart.sequences[s].tokens = sample.whole(s);
        apart.sequences[s].shared = 0;
    }
    return apart;
}

/// Where the sequences end that stay together from `begin` on; `pairs_at`: the pairs by their first sequence.
static size_t end_of_unit(const std::vector<std::vector<AnswerPair>>& pairs_at, size_t begin) {
    size_t end = begin + 1;
    for (size_t s = begin; s < end; ++s)
        for (const AnswerPair& pair : pairs_at[s])
            end = std::max(end, static_cast<size_t>(std::max(pair.better, pair.worse)) + 1);
    return end;
}

std::vector<Sample> split_sample(const Sample& sample, const std::function<bool(const Sample&)>& fits) {
    std::vector<std::vector<AnswerPair>> pairs_at(sample.sequences.size());
    for (const AnswerPair& pair : sample.pairs)
        pairs_at[static_cast<size_t>(std::min(pair.better, pair.worse))].push_back(pair);
    std::vector<Sample> parts;
    int32_t first = 0;  // sequence of the last part
    const auto append = [&](size_t begin, size_t end) {
        Sample& part = parts.back();
        for (size_t s = begin; s < end; ++s) {
            part.sequences.push_back(sample.sequences[s]);
            for (const AnswerPair& pair : pairs_at[s])
                part.pairs.push_back({pair.better - first, pair.worse - first, pair.margin, pair.weight});
        }
    };
    for (size_t begin = 0, end; begin < pairs_at.size(); begin = end) {
        end = end_of_unit(pairs_at, begin);
        if (!parts.empty()) {
            Sample& part = parts.back();
            const size_t sequences = part.sequences.size(), pairs = part.pairs.size();
            append(begin, end);
            if (fits(part)) continue;
            part.sequences.resize(sequences);
            part.pairs.resize(pairs);
        }
        first = static_cast<int32_t>(begin);
        parts.emplace_back();
        append(begin, end);
        parts.back().sequences[0].tokens = sample.whole(begin);
        parts.back().sequences[0].shared = 0;
    }
    return parts;
}

std::vector<LearnedSpan> learned_spans(const std::vector<float>& weights) {
    std::vector<LearnedSpan> spans;
    for (size_t begin = 1, end; begin < weights.size(); begin = end) {
        for (end = begin + 1; end < weights.size() && weights[end] == weights[begin];) ++end;
        if (weights[begin] > 0)
            spans.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end), weights[begin]});
    }
    return spans;
}

int64_t learned_tokens(const Sequence& sequence) {
    int64_t tokens = 0;
    for (const auto& [begin, end, weight] : sequence.learned) tokens += end - begin;
    return tokens;
}

double target_weight(const Sequence& sequence) {
    double sum = 0;
    for (const auto& [begin, end, weight] : sequence.learned) sum += static_cast<double>(weight) * (end - begin);
    return sum;
}

double target_weight(const Sample& sample) {
    double sum = 0;
    for (const Sequence& sequence : sample.sequences) sum += target_weight(sequence);
    return sum;
}

PairTotals pair_totals(std::span<const AnswerPair> pairs) {
    PairTotals totals{.pairs = static_cast<double>(pairs.size())};
    for (const AnswerPair& pair : pairs) totals.weight += static_cast<double>(pair.weight);
    return totals;
}

std::vector<AnswerPair> ranked_pairs(size_t answers, RankedPairs which, AnswerPair like) {
    std::vector<AnswerPair> pairs;
    const auto count = static_cast<int32_t>(answers);
    for (int32_t better = 0; better < (which == RankedPairs::best ? std::min(1, count) : count); ++better)
        for (int32_t worse = better + 1; worse < count; ++worse)
            pairs.push_back({better, worse, like.margin, like.weight});
    return pairs;
}

static void check_logps(const std::vector<float>& logps, int64_t tokens, size_t sequence) {
    require(logps.empty() || std::ssize(logps) == tokens, "sequence {} has {} log-probabilities of {} learned tokens",
            sequence, logps.size(), tokens);
    for (const float logp : logps)
        require(std::isnan(logp) || (logp <= 0 && std::isfinite(logp)), "sequence {} has a log-probability of {}",
                sequence, logp);
}

void check_sample(const Sample& sample) {
    const std::vector<Sequence>& sequences = sample.sequences;
    require(!sequences.empty(), "a sample has no sequence");
    int64_t before = 0;  // length of the sequence before
    for (size_t s = 0; s < sequences.size(); ++s) {
        const Sequence& sequence = sequences[s];
        require(sequence.shared >= 0 && sequence.shared <= before,
                "sequence {} of a sample shares {} tokens with one of {}", s, sequence.shared, before);
        before = sequence.length();
        int64_t last = 1;
        for (const auto& [begin, end, weight] : sequence.learned) {
            require(begin >= last && end > begin && end <= before && weight > 0 && std::isfinite(weight),
                    "sequence {} of {} tokens learns [{}, {}) with weight {}, behind token {}", s, before, begin, end,
                    weight, last);
            last = end;
        }
        require(std::isfinite(sequence.advantage), "sequence {} has an advantage of {}", s, sequence.advantage);
        for (const auto of : GivenLogps::all) check_logps(sequence.logps.*of, learned_tokens(sequence), s);
    }
    const auto count = static_cast<int64_t>(sequences.size());
    for (const auto& [better, worse, margin, weight] : sample.pairs)
        require(better >= 0 && better < count && worse >= 0 && worse < count && better != worse &&
                    std::isfinite(margin) && weight > 0 && std::isfinite(weight),
                "a pair of sequences {} and {} of {} with margin {} and weight {}", better, worse, count, margin,
                weight);
}

bool chosen_come_last(const Sample& sample) {
    return std::ranges::all_of(sample.pairs, [](const AnswerPair& pair) { return pair.better > pair.worse; });
}

}  // namespace colonnade
