#include "data/store/mismatched_answers.h"

#include <algorithm>
#include <numeric>

#include "engine/device/error.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// FNV-1a by tokens. Two prompts that have the same hash by chance do not get each other's answers: no harm is done.
uint64_t hash_of(std::span<const int32_t> tokens) {
    uint64_t hash = 14695981039346656037u;
    for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 1099511628211u;
    return hash;
}

std::vector<int64_t> drawn_order(int64_t count, uint64_t seed) {
    constexpr uint64_t mismatched_stream = 0x4B54;
    const Philox random{seed, mismatched_stream};
    std::vector<int64_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, {}, [&](int64_t i) { return std::pair(random.bits(static_cast<uint64_t>(i)), i); });
    return order;
}

}  // namespace

MismatchedAnswers::MismatchedAnswers(const TokenStore& store, const Settings& settings)
    : max_length_(settings.max_length) {
    const auto count = static_cast<size_t>(store.size());
    std::vector<uint64_t> hashes;
    for (size_t i = 0; i < count; ++i) {
        const Sample sample = store.sample(static_cast<int64_t>(i));
        require(sample.sequences.size() == 1 && !sample.sequences[0].learned.empty(),
                "{}: {} sequences, expected one answer that is learned", store.place(static_cast<int64_t>(i)),
                sample.sequences.size());
        const Sequence& own = sample.sequences[0];
        require(own.length() <= max_length_, "a sample of {} tokens, max_length {}", own.length(), max_length_);
        prompts_.push_back(own.learned[0].begin);
        hashes.push_back(hash_of(std::span(own.tokens).first(static_cast<size_t>(prompts_[i]))));
    }
    if (std::ranges::all_of(hashes, [&](uint64_t hash) { return hash == hashes[0]; })) return;

    const std::vector<int64_t> order = drawn_order(store.size(), settings.seed);
    const auto hash_at = [&](size_t place) { return hashes[static_cast<size_t>(order[place % count])]; };
    partners_.resize(count);
    size_t next = count;  // the nearest place ahead with another prompt; twice around the circle
    while (hash_at(next) == hash_at(count - 1)) ++next;
    for (size_t place = count; place-- > 0;) {
        if (hash_at(place) != hash_at(place + 1)) next = place + 1;
        partners_[static_cast<size_t>(order[place])] = order[next % count];
    }
}

Sample MismatchedAnswers::sample(const TokenStore& store, int64_t i) const {
    const int64_t other = partner(i);
    const int32_t prompt = prompts_[static_cast<size_t>(i)], from = prompts_[static_cast<size_t>(other)];
    Sequence sequence = store.sample(i).sequences[0];
    const Sample given = store.sample(other);
    const Sequence& answer = given.sequences[0];
    sequence.tokens.resize(static_cast<size_t>(prompt));
    sequence.tokens.insert(sequence.tokens.end(), answer.tokens.begin() + from, answer.tokens.end());
    const auto length = static_cast<int32_t>(std::min(std::ssize(sequence.tokens), max_length_));
    sequence.tokens.resize(static_cast<size_t>(length));
    sequence.learned.clear();
    for (const auto& [begin, end, weight] : answer.learned) {
        const int32_t first = begin - from + prompt, last = std::min(end - from + prompt, length);
        if (first < last) sequence.learned.push_back({first, last, weight});
    }
    sequence.advantage = 0;
    sequence.reward.reset();
    sequence.logps = {};
    return {.sequences = {std::move(sequence)}};
}

std::vector<int64_t> MismatchedAnswers::lengths(const TokenStore& store) const {
    const std::vector<int64_t> own = store.lengths();
    std::vector<int64_t> lengths;
    for (size_t i = 0; i < partners_.size(); ++i) {
        const auto other = static_cast<size_t>(partners_[i]);
        lengths.push_back(std::min(prompts_[i] + own[other] - prompts_[other], max_length_));
    }
    return lengths;
}

std::vector<int64_t> MismatchedAnswers::row_lengths(const TokenStore& store) const {
    std::vector<int64_t> longer = store.lengths();
    const std::vector<int64_t> mismatched = lengths(store);
    for (size_t i = 0; i < mismatched.size(); ++i) longer[i] = std::max(longer[i], mismatched[i]);
    return longer;
}

void MismatchedAnswers::limit(PrefixOrder& order) const {
    const auto prompt = [&](size_t place) { return prompts_[static_cast<size_t>(order.order[place])]; };
    for (size_t place = 1; place < order.lcp.size() && !empty(); ++place)
        order.lcp[place] = std::min({order.lcp[place], prompt(place), prompt(place - 1)});
}

}  // namespace colonnade
