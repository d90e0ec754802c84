#include "train/bench/step_workload.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {
namespace {

constexpr size_t longest_file = size_t{1} << 28;

std::vector<int64_t> read_lengths(std::string_view line, const std::string& where) {
    std::vector<int64_t> lengths;
    constexpr std::string_view blanks = " \t\r";
    for (size_t begin = 0; (begin = line.find_first_not_of(blanks, begin)) != std::string_view::npos;) {
        const size_t end = std::min(line.find_first_of(blanks, begin), line.size());
        const std::string_view word = line.substr(begin, end - begin);
        int64_t length = 0;
        const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), length);
        if (error != std::errc() || stop != word.data() + word.size() || length < 1 || length > ColumnMask::max_length)
            fail(Exit::data, "{}: expected lengths of documents, each at least 1, found '{:.40}'", where, word);
        lengths.push_back(length);
        begin = end;
    }
    return lengths;
}

/// Random lengths and tokens.
class RandomDraws {
  public:
    explicit RandomDraws(const RandomSamples& wanted) : wanted_(wanted) {}

    int64_t length(int64_t mean) {
        constexpr double sigma = 0.7;
        const double mu = std::log(static_cast<double>(mean)) - sigma * sigma / 2;
        return std::llround(std::exp(mu + sigma * lengths_.normal(drawn_lengths_++)));
    }
    void append(std::vector<int32_t>& to, int64_t count) {
        for (; count > 0; --count)
            to.push_back(static_cast<int32_t>(tokens_.below(drawn_tokens_++, static_cast<uint64_t>(wanted_.vocab))));
    }

  private:
    const RandomSamples wanted_;
    const Philox lengths_{.seed = wanted_.seed, .stream = 0}, tokens_{.seed = wanted_.seed, .stream = 1};
    uint64_t drawn_lengths_ = 0, drawn_tokens_ = 0;
};

}  // namespace

RowLengths read_row_lengths(const std::string& path) {
    const std::string text = read_file(path, longest_file);
    RowLengths rows;
    int64_t number = 0;
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        const std::string where = fmt::format("{}:{}", path, ++number);
        std::vector<int64_t> lengths = read_lengths(std::string_view(text).substr(begin, end - begin), where);
        if (lengths.empty()) fail(Exit::data, "{}: expected a row of lengths, found an empty line", where);
        rows.push_back(std::move(lengths));
        begin = end + 1;
    }
    if (rows.empty()) fail(Exit::data, "{}: contains no rows", path);
    return rows;
}

int64_t longest_row(const RowLengths& rows) {
    int64_t longest = 0;
    for (const auto& row : rows) longest = std::max(longest, std::accumulate(row.begin(), row.end(), int64_t{0}));
    return longest;
}

Batch random_batch(const RowLengths& rows, int64_t first, int64_t packs, int64_t vocab, const Philox& random) {
    uint64_t draws = 0;
    const auto draw = [&] { return static_cast<int32_t>(random.below(draws++, static_cast<uint64_t>(vocab))); };
    std::vector<std::vector<Sample>> samples(static_cast<size_t>(packs));
    std::vector<std::vector<const Sample*>> views(samples.size());
    for (size_t p = 0; p < samples.size(); ++p) {
        for (const int64_t length : rows[(static_cast<size_t>(first) + p) % rows.size()]) {
            Sequence& sequence = samples[p].emplace_back().sequences.emplace_back();  // the targets are set below
            sequence.tokens.resize(static_cast<size_t>(length));
            std::ranges::generate(sequence.tokens, draw);
        }
        for (const Sample& sample : samples[p]) views[p].push_back(&sample);
    }
    Batch batch = make_batch(views);
    batch.term_begins = {0};
    for (size_t p = 0; p < samples.size(); ++p) {
        int64_t row = static_cast<int64_t>(p) * batch.length;
        for (const Sample& sample : samples[p]) {
            for (int64_t i = 0; i < sample.length(); ++i) {
                batch.term_targets.push_back(static_cast<int32_t>(batch.rows.size()));
                batch.rows.push_back(static_cast<int32_t>(row++));
            }
            batch.term_begins.push_back(static_cast<int32_t>(batch.rows.size()));
        }
    }
    batch.term_weights.assign(batch.rows.size(), 1);
    batch.targets.resize(batch.rows.size());
    std::ranges::generate(batch.targets, draw);
    batch.weights.assign(batch.rows.size(), 1);
    batch.target_weight = static_cast<double>(batch.rows.size());
    return batch;
}

TokenStore random_samples(const RandomSamples& wanted) {
    RandomDraws draws(wanted);
    TokenStore store;
    for (int64_t i = 0; store.tokens() < wanted.tokens; ++i) {
        const int64_t length = std::clamp<int64_t>(draws.length(wanted.mean_length), 2, wanted.max_length);
        Sequence sequence{.learned = {{1, static_cast<int32_t>(length), 1}}};
        draws.append(sequence.tokens, length);
        store.add({.sequences = {std::move(sequence)}}, 0, i + 1);
    }
    return store;
}

TokenStore random_trees(const TreeLengths& lengths, const RandomSamples& wanted) {
    RandomDraws draws(wanted);
    TokenStore store;
    for (int64_t tokens = 0; tokens < wanted.tokens;) {
        std::vector<int32_t> path;  // the stem and the trunk so far
        draws.append(path, lengths.stem);
        int64_t computed = 0, of_leaves = 0;
        for (int64_t leaf = 0; leaf < lengths.leaves && tokens + computed < wanted.tokens; ++leaf) {
            const auto begin = static_cast<int32_t>(path.size());
            if (begin + 2 > wanted.max_length) break;
            const int64_t own = std::clamp<int64_t>(draws.length(lengths.leaf), 2, wanted.max_length - begin),
                          end = begin + own;
            Sequence sequence{.tokens = path, .learned = {{std::max(begin, 1), static_cast<int32_t>(end), 1}}};
            draws.append(sequence.tokens, own);
            store.add({.sequences = {std::move(sequence)}}, 0, store.size() + 1);
            of_leaves += own;
            computed = begin + of_leaves;
            if (lengths.trunk > 0) draws.append(path, draws.length(lengths.trunk));
        }
        tokens = lengths.shared ? tokens + computed : store.tokens();
    }
    store.statistics.files.resize(1);
    store.count_samples();
    return store;
}

TokenStore random_pairs(const PairLengths& lengths, int64_t pairs, int64_t vocab, uint64_t seed) {
    const auto prompt = static_cast<int32_t>(lengths.prompt), chosen = prompt + static_cast<int32_t>(lengths.chosen),
               rejected = prompt + static_cast<int32_t>(lengths.rejected);
    Sample pair{.sequences = {{.tokens = std::vector<int32_t>(static_cast<size_t>(chosen)),
                               .learned = {{std::max(prompt, 1), chosen, 1}}},
                              {.shared = prompt,
                               .tokens = std::vector<int32_t>(static_cast<size_t>(lengths.rejected)),
                               .learned = {{std::max(prompt, 1), rejected, 1}}}},
                .pairs = {{0, 1}}};
    const Philox random{.seed = seed, .stream = 1};
    TokenStore store;
    uint64_t draws = 0;
    for (int64_t i = 0; i < pairs; ++i) {
        for (Sequence& sequence : pair.sequences)
            for (int32_t& token : sequence.tokens)
                token = static_cast<int32_t>(random.below(draws++, static_cast<uint64_t>(vocab)));
        store.add(lengths.repeat_prompts ? unshared(pair) : pair, 0, i + 1);
    }
    return store;
}

}  // namespace colonnade
