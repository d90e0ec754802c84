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

/// The same sample without a stem: every branch begins with a copy of the stem, which carries no targets.
Sample repeat_prompt(const Sample& sample) {
    const std::vector<int32_t>& begins = sample.branch_begins;
    Sample repeated;
    repeated.margin = sample.margin;
    for (size_t b = 0; b < begins.size(); ++b) {
        const int64_t begin = begins[b], end = b + 1 < begins.size() ? begins[b + 1] : sample.length();
        repeated.branch_begins.push_back(static_cast<int32_t>(repeated.tokens.size()));
        const auto append = [&](auto& to, const auto& from) {
            to.insert(to.end(), from.begin(), from.begin() + begins.front());
            to.insert(to.end(), from.begin() + begin, from.begin() + end);
        };
        append(repeated.tokens, sample.tokens);
        append(repeated.weights, sample.weights);
    }
    return repeated;
}

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
            Sample& sample = samples[p].emplace_back();
            sample.tokens.resize(static_cast<size_t>(length));
            std::ranges::generate(sample.tokens, draw);
            sample.weights.assign(sample.tokens.size(), 0);  // the targets are set below
            sample.branch_begins = {0};
        }
        for (const Sample& sample : samples[p]) views[p].push_back(&sample);
    }
    Batch batch = make_batch(views);
    int32_t document = 0;
    for (size_t p = 0; p < samples.size(); ++p) {
        int64_t row = static_cast<int64_t>(p) * batch.length;
        for (const Sample& sample : samples[p]) {
            for (int64_t i = 0; i < sample.length(); ++i) {
                batch.rows.push_back(static_cast<int32_t>(row++));
                batch.branches.push_back(document);
            }
            ++document;
        }
    }
    batch.targets.resize(batch.rows.size());
    std::ranges::generate(batch.targets, draw);
    batch.weights.assign(batch.rows.size(), 1);
    batch.target_weight = static_cast<double>(batch.rows.size());
    return batch;
}

TokenStore random_samples(const RandomSamples& wanted) {
    constexpr double sigma = 0.7;
    const double mu = std::log(static_cast<double>(wanted.mean_length)) - sigma * sigma / 2;
    const Philox lengths{.seed = wanted.seed, .stream = 0}, tokens{.seed = wanted.seed, .stream = 1};
    TokenStore store;
    for (uint64_t i = 0; store.tokens() < wanted.tokens; ++i) {
        const auto drawn = static_cast<int64_t>(std::llround(std::exp(mu + sigma * lengths.normal(i))));
        const auto length = static_cast<size_t>(std::clamp<int64_t>(drawn, 2, wanted.max_length));
        Sample sample{
            .tokens = std::vector<int32_t>(length), .weights = std::vector<float>(length, 1), .branch_begins = {0}};
        sample.weights[0] = 0;
        const auto begin = static_cast<uint64_t>(store.tokens());
        for (size_t t = 0; t < length; ++t)
            sample.tokens[t] = static_cast<int32_t>(tokens.below(begin + t, static_cast<uint64_t>(wanted.vocab)));
        store.add(sample, 0, static_cast<int64_t>(i) + 1);
    }
    return store;
}

TokenStore random_pairs(const PairLengths& lengths, int64_t pairs, int64_t vocab, uint64_t seed) {
    const auto stem = static_cast<size_t>(lengths.prompt),
               rejected = static_cast<size_t>(lengths.prompt + lengths.chosen);
    Sample pair;
    pair.tokens.resize(rejected + static_cast<size_t>(lengths.rejected));
    pair.branch_begins = {static_cast<int32_t>(stem), static_cast<int32_t>(rejected)};
    pair.weights.assign(pair.tokens.size(), 1);
    std::fill_n(pair.weights.begin(), stem, 0.0f);
    const Philox random{.seed = seed, .stream = 1};
    TokenStore store;
    uint64_t draws = 0;
    for (int64_t i = 0; i < pairs; ++i) {
        for (int32_t& token : pair.tokens)
            token = static_cast<int32_t>(random.below(draws++, static_cast<uint64_t>(vocab)));
        store.add(lengths.repeat_prompts ? repeat_prompt(pair) : pair, 0, i + 1);
    }
    return store;
}

}  // namespace colonnade
