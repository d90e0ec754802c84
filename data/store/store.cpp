#include "data/store/store.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string_view>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

constexpr float unknown = std::numeric_limits<float>::quiet_NaN();
constexpr const char* format_name = "colonnade token store";

std::vector<uint8_t> text_bytes(const std::string& text) {
    return {text.begin(), text.end()};
}

/// Throws unless `begins` divides [0, total) into `count` consecutive ranges of at least `least` entries.
void check_begins(const std::string& path, const char* name, const std::vector<int64_t>& begins, size_t count,
                  size_t total, int64_t least) {
    if (begins.size() != count + 1)
        fail(Exit::data, "{}: {} has {} entries, expected {}", path, name, begins.size(), count + 1);
    if (begins.front() != 0 || begins.back() != static_cast<int64_t>(total))
        fail(Exit::data, "{}: {} does not run from 0 to {}", path, name, total);
    const auto bad =
        std::adjacent_find(begins.begin(), begins.end(), [&](int64_t a, int64_t b) { return a > b - least; });
    if (bad != begins.end())
        fail(Exit::data, "{}: {}[{}] is {}, expected at least {}", path, name, bad - begins.begin() + 1, bad[1],
             bad[0] + least);
}

/// Hash over the names, sizes and contents of all datasets.
class PayloadHash {
  public:
    template <typename T>
    void add(const std::string& name, const std::vector<T>& values) {
        const std::string head = fmt::format("{} {}\n", name, values.size());
        hash_.update(head.data(), head.size());
        hash_.update(values.data(), values.size() * sizeof(T));
    }
    std::string hex() { return hash_.hex(); }

  private:
    Sha256 hash_;
};

}  // namespace

/// Calls body(name, values...) for every numeric dataset, in file order, with those of each store.
template <typename Body, typename... Stores>
void TokenStore::for_each_dataset(Body&& body, Stores&... stores) {
    body("tokens", stores.tokens_...);
    body("token_begins", stores.token_begins_...);
    body("shared", stores.shared_...);
    body("spans", stores.spans_...);
    body("span_weights", stores.span_weights_...);
    body("span_begins", stores.span_begins_...);
    body("advantages", stores.advantages_...);
    body("rewards", stores.rewards_...);
    body("old_logps", stores.logps_.old...);
    body("sampled_logps", stores.logps_.sampled...);
    body("reference_logps", stores.logps_.reference...);
    body("teacher_places", stores.teacher_places_...);
    body("teacher_words", stores.teacher_words_...);
    body("learned_begins", stores.learned_begins_...);
    body("sequence_begins", stores.sequence_begins_...);
    body("pairs", stores.pairs_...);
    body("margins", stores.margins_...);
    body("pair_weights", stores.pair_weights_...);
    body("pair_begins", stores.pair_begins_...);
    body("source_files", stores.source_files_...);
    body("source_lines", stores.source_lines_...);
    body("notes", stores.notes_...);
}

void TokenStore::add(const Sample& sample, int32_t file, int64_t line, RowNotes notes) {
    for (const Sequence& sequence : sample.sequences) {
        tokens_.insert(tokens_.end(), sequence.tokens.begin(), sequence.tokens.end());
        token_begins_.push_back(tokens());
        add_given(sequence);
        shared_.push_back(sequence.shared);
        for (const auto& [begin, end, weight] : sequence.learned) {
            spans_.insert(spans_.end(), {begin, end});
            span_weights_.push_back(weight);
        }
        span_begins_.push_back(std::ssize(span_weights_));
    }
    sequence_begins_.push_back(std::ssize(shared_));
    for (const auto& [better, worse, margin, weight] : sample.pairs) {
        pairs_.insert(pairs_.end(), {better, worse});
        margins_.push_back(margin);
        pair_weights_.push_back(weight);
    }
    pair_begins_.push_back(std::ssize(margins_));
    source_files_.push_back(file);
    source_lines_.push_back(line);
    notes_.push_back(notes.bits());
}

/// Appends what a sequence gives beside its tokens. A list begins with the first sequence that has a number for it.
void TokenStore::add_given(const Sequence& sequence) {
    if (sequence.advantage != 0 || sequence.reward) {
        advantages_.resize(shared_.size());
        advantages_.push_back(sequence.advantage);
        rewards_.resize(shared_.size(), unknown);
        rewards_.push_back(sequence.reward.value_or(unknown));
    }
    if (sequence.teacher_place.words > 0) {
        teacher_places_.resize(shared_.size());
        teacher_places_.push_back(sequence.teacher_place.begin);
        teacher_words_.resize(shared_.size());
        teacher_words_.push_back(sequence.teacher_place.words);
    }
    for (const auto of : GivenLogps::all) {
        if ((sequence.logps.*of).empty()) continue;
        (logps_.*of).resize(static_cast<size_t>(learned_begins_.back()), unknown);
        (logps_.*of).insert((logps_.*of).end(), (sequence.logps.*of).begin(), (sequence.logps.*of).end());
    }
    learned_begins_.push_back(learned_begins_.back() + learned_tokens(sequence));
}

/// The lists of numbers may be shorter than the tokens: what follows is unknown.
Sequence TokenStore::sequence(size_t s) const {
    Sequence sequence{.shared = shared_[s],
                      .tokens = {tokens_.begin() + token_begins_[s], tokens_.begin() + token_begins_[s + 1]}};
    for (auto span = static_cast<size_t>(span_begins_[s]); span < static_cast<size_t>(span_begins_[s + 1]); ++span)
        sequence.learned.push_back({spans_[2 * span], spans_[2 * span + 1], span_weights_[span]});
    if (s < advantages_.size()) {
        sequence.advantage = advantages_[s];
        if (!std::isnan(rewards_[s])) sequence.reward = rewards_[s];
    }
    if (s < teacher_places_.size()) sequence.teacher_place = {teacher_places_[s], teacher_words_[s]};
    for (const auto of : GivenLogps::all) {
        const std::vector<float>& all = logps_.*of;
        const int64_t begin = learned_begins_[s], end = std::min(learned_begins_[s + 1], std::ssize(all));
        if (std::any_of(all.begin() + std::min(begin, end), all.begin() + end, [](float v) { return !std::isnan(v); }))
            (sequence.logps.*of).assign(all.begin() + begin, all.begin() + end);
    }
    return sequence;
}

std::vector<int64_t> TokenStore::learned_offsets() const {
    std::vector<int64_t> offsets;
    for (const int64_t s : sequence_begins_) offsets.push_back(learned_begins_[static_cast<size_t>(s)]);
    return offsets;
}

void TokenStore::set_logps(std::vector<float> GivenLogps::*of, std::vector<float> logps) {
    require(logps.empty() || std::ssize(logps) == learned_count(), "{} log-probabilities for {} learned tokens",
            logps.size(), learned_count());
    logps_.*of = std::move(logps);
}

void TokenStore::append(const TokenStore& later) {
    const auto fill = [](std::vector<float>& values, size_t size) { values.resize(size, unknown); };
    if (!later.advantages_.empty()) {
        advantages_.resize(shared_.size());
        fill(rewards_, shared_.size());
    }
    if (!later.teacher_places_.empty()) {
        teacher_places_.resize(shared_.size());
        teacher_words_.resize(shared_.size());
    }
    for (const auto of : GivenLogps::all)
        if (!(later.logps_.*of).empty()) fill(logps_.*of, static_cast<size_t>(learned_begins_.back()));
    const auto join = [](std::string_view name, auto& values, const auto& more) {
        const bool begins = name.ends_with("_begins");  // they continue from their end
        const auto end = begins ? values.back() : 0;
        for (size_t i = begins ? 1 : 0; i < more.size(); ++i) values.push_back(end + more[i]);
    };
    for_each_dataset(join, *this, later);
    add_rows(statistics, later.statistics);
}

void TokenStore::set_scores(std::vector<float> advantages, std::vector<float> rewards) {
    require(advantages.size() == shared_.size() && rewards.size() == shared_.size(),
            "{} advantages and {} rewards of {} sequences", advantages.size(), rewards.size(), shared_.size());
    advantages_ = std::move(advantages);
    rewards_ = std::move(rewards);
}

void TokenStore::move_teacher(int64_t words) {
    for (int64_t& place : teacher_places_) place += words;
}

size_t TokenStore::bytes() const {
    size_t sum = 0;
    for_each_dataset([&](const char*, const auto& values) { sum += values.size() * sizeof(values[0]); }, *this);
    return sum;
}

Sample TokenStore::sample(int64_t i) const {
    Sample sample;
    const auto at = static_cast<size_t>(i);
    for (int64_t s = sequence_begins_[at]; s < sequence_begins_[at + 1]; ++s)
        sample.sequences.push_back(sequence(static_cast<size_t>(s)));
    for (auto p = static_cast<size_t>(pair_begins_[at]); p < static_cast<size_t>(pair_begins_[at + 1]); ++p)
        sample.pairs.push_back({pairs_[2 * p], pairs_[2 * p + 1], margins_[p], pair_weights_[p]});
    return sample;
}

int64_t TokenStore::length_of_sample(size_t i) const {
    return token_begins_[static_cast<size_t>(sequence_begins_[i + 1])] -
           token_begins_[static_cast<size_t>(sequence_begins_[i])];
}

std::vector<int64_t> TokenStore::lengths() const {
    std::vector<int64_t> lengths(static_cast<size_t>(size()));
    for (size_t i = 0; i < lengths.size(); ++i) lengths[i] = length_of_sample(i);
    return lengths;
}

std::vector<int64_t> TokenStore::visible_pairs() const {
    std::vector<int64_t> pairs(static_cast<size_t>(size()));
    for (size_t i = 0; i < pairs.size(); ++i)
        for (auto s = static_cast<size_t>(sequence_begins_[i]); s < static_cast<size_t>(sequence_begins_[i + 1]); ++s)
            pairs[i] += colonnade::visible_pairs(shared_[s] + token_begins_[s + 1] - token_begins_[s], shared_[s]);
    return pairs;
}

std::vector<double> TokenStore::target_weights() const {
    std::vector<double> sums(static_cast<size_t>(size()));
    for (size_t i = 0; i < sums.size(); ++i)
        for (int64_t s = sequence_begins_[i]; s < sequence_begins_[i + 1]; ++s) {
            double of_sequence = 0;  // summed as target_weight() does
            for (auto span = static_cast<size_t>(span_begins_[static_cast<size_t>(s)]);
                 span < static_cast<size_t>(span_begins_[static_cast<size_t>(s) + 1]); ++span)
                of_sequence += static_cast<double>(span_weights_[span]) * (spans_[2 * span + 1] - spans_[2 * span]);
            sums[i] += of_sequence;
        }
    return sums;
}

std::vector<PairTotals> TokenStore::pairs() const {
    std::vector<PairTotals> totals(static_cast<size_t>(size()));
    for (size_t i = 0; i < totals.size(); ++i)
        for (auto p = static_cast<size_t>(pair_begins_[i]); p < static_cast<size_t>(pair_begins_[i + 1]); ++p) {
            totals[i].pairs += 1;
            totals[i].weight += static_cast<double>(pair_weights_[p]);
        }
    return totals;
}

/// Returns body(leading sequences).
template <typename Body>
auto TokenStore::with_leading(Body&& body) const {
    std::vector<int64_t> begins, ends;
    for (size_t i = 0; i + 1 < sequence_begins_.size(); ++i) {
        const auto first = static_cast<size_t>(sequence_begins_[i]);
        begins.push_back(token_begins_[first]);
        ends.push_back(token_begins_[first + 1]);
    }
    return body(TokenSequences{.tokens = tokens_, .begins = begins, .ends = ends});
}

PrefixOrder TokenStore::prefix_order() const {
    return with_leading([](const TokenSequences& leading) { return colonnade::prefix_order(leading); });
}

PrefixSharing TokenStore::prefix_sharing(const PrefixOrder& order) const {
    return with_leading([&](const TokenSequences& leading) { return colonnade::prefix_sharing(leading, order); });
}

std::string TokenStore::place(int64_t i) const {
    const auto at = static_cast<size_t>(i);
    const StoreStatistics::File& file = statistics.files[static_cast<size_t>(source_files_[at])];
    return row_place(file.path, file.numbering, source_lines_[at]);
}

int64_t TokenStore::dataset(int64_t i) const {
    return statistics.files[static_cast<size_t>(source_files_[static_cast<size_t>(i)])].dataset;
}

void TokenStore::count_samples() {
    const std::vector<double> weights = target_weights();
    statistics.samples = size();
    statistics.tokens = tokens();
    statistics.learned_tokens = 0;
    for (size_t i = 0; i < spans_.size(); i += 2) statistics.learned_tokens += spans_[i + 1] - spans_[i];
    statistics.learned_weight = std::accumulate(weights.begin(), weights.end(), 0.0);
    statistics.lengths = length_table(lengths());
    count_pairs();
    for (auto& file : statistics.files) file.samples = 0;
    for (const int32_t file : source_files_) ++statistics.files[static_cast<size_t>(file)].samples;
}

void TokenStore::count_pairs() {
    StoreStatistics& s = statistics;
    s.pairs = s.answers = s.pair_tokens = s.repeated_tokens = 0;
    for (size_t i = 0; i < source_files_.size(); ++i) {
        if (pair_begins_[i] == pair_begins_[i + 1]) continue;
        ++s.pairs;
        s.answers += sequence_begins_[i + 1] - sequence_begins_[i];
        s.pair_tokens += length_of_sample(i);
        s.repeated_tokens += length_of_sample(i);
        for (int64_t q = sequence_begins_[i]; q < sequence_begins_[i + 1]; ++q)
            s.repeated_tokens += shared_[static_cast<size_t>(q)];
    }
}

TokenStore TokenStore::select(const std::vector<int64_t>& samples) const {
    TokenStore part;
    part.settings = settings;
    part.statistics = statistics;
    for (const int64_t i : samples) {
        const auto at = static_cast<size_t>(i);
        part.add(sample(i), source_files_[at], source_lines_[at], notes(i));
    }
    part.count_samples();
    return part;
}

TokenStore TokenStore::divided(const std::vector<std::vector<Sample>>& parts) const {
    TokenStore store;
    store.settings = settings;
    store.statistics = statistics;
    for (size_t i = 0; i < parts.size(); ++i) {
        const std::vector<Sample> own = parts[i].empty() ? std::vector{sample(static_cast<int64_t>(i))} : parts[i];
        for (const Sample& part : own)
            store.add(part, source_files_[i], source_lines_[i], notes(static_cast<int64_t>(i)));
    }
    store.count_samples();
    return store;
}

TokenStore TokenStore::subset(const std::function<bool(int64_t)>& keep) const {
    std::vector<int64_t> samples;
    for (int64_t i = 0; i < size(); ++i)
        if (keep(i)) samples.push_back(i);
    return select(samples);
}

void TokenStore::write(const std::string& path, const std::string& key) const {
    FileCommit commit(path);
    Hdf5Writer file(commit.temporary());
    PayloadHash hash;
    const auto put = [&](const std::string& name, const auto& values) {
        hash.add(name, values);
        file.write(name, view_of(values));
    };
    for_each_dataset(put, *this);
    put("settings", text_bytes(settings));
    put("statistics", text_bytes(to_json_text(statistics)));
    file.attribute("format", format_name);
    file.attribute("format_version", format_version);
    file.attribute("key", key);
    file.attribute("samples", size());
    file.attribute("tokens", tokens());
    file.attribute("payload_sha256", hash.hex());
    file.close();
    commit.commit();
}

TokenStore TokenStore::open(const std::string& path, const std::string& key, int64_t vocab_size) {
    try {
        TokenStore store;
        store.read(path, key);
        store.check(path, vocab_size);
        return store;
    } catch (const Error& e) {
        if (e.exit() != Exit::data) throw;
        fail(Exit::data, "{}; delete this file to build it again from the data", e.what());
    }
}

void TokenStore::read(const std::string& path, const std::string& key) {
    const Hdf5Reader file(path);
    const auto expect_text = [&](const char* name, const std::string& expected) {
        const std::string found = file.text_attribute(name);
        if (found != expected) fail(Exit::data, "{}: {} is '{}', expected '{}'", path, name, found, expected);
    };
    const auto expect_number = [&](const char* name, int64_t expected) {
        const int64_t found = file.int_attribute(name);
        if (found != expected) fail(Exit::data, "{}: attribute {} is {}, expected {}", path, name, found, expected);
    };
    expect_text("format", format_name);
    expect_number("format_version", format_version);
    expect_text("key", key);
    PayloadHash hash;
    const auto get = [&](const std::string& name, auto& values) {
        values = file.read_all<typename std::decay_t<decltype(values)>::value_type>(name);
        hash.add(name, values);
    };
    for_each_dataset(get, *this);
    std::vector<uint8_t> settings_bytes, statistics_bytes;
    get("settings", settings_bytes);
    get("statistics", statistics_bytes);
    expect_number("samples", size());
    expect_number("tokens", tokens());
    expect_text("payload_sha256", hash.hex());
    settings.assign(settings_bytes.begin(), settings_bytes.end());
    statistics = statistics_from_json({statistics_bytes.begin(), statistics_bytes.end()}, path);
}

void TokenStore::check(const std::string& path, int64_t vocab_size) const {
    const auto samples = static_cast<size_t>(size());
    const size_t sequences = shared_.size();
    const auto expect_size = [&](const char* name, size_t found, size_t expected) {
        if (found != expected) fail(Exit::data, "{}: {} has {} entries, expected {}", path, name, found, expected);
    };
    expect_size("spans", spans_.size(), 2 * span_weights_.size());
    expect_size("pairs", pairs_.size(), 2 * margins_.size());
    expect_size("pair_weights", pair_weights_.size(), margins_.size());
    expect_size("source_lines", source_lines_.size(), samples);
    expect_size("notes", notes_.size(), samples);
    check_begins(path, "token_begins", token_begins_, sequences, tokens_.size(), 0);
    check_begins(path, "span_begins", span_begins_, sequences, span_weights_.size(), 0);
    check_begins(path, "learned_begins", learned_begins_, sequences,
                 static_cast<size_t>(learned_begins_.empty() ? 0 : learned_begins_.back()), 0);
    expect_size("rewards", rewards_.size(), advantages_.size());
    const auto expect_at_most = [&](const char* name, size_t found, size_t most) {
        if (found > most) fail(Exit::data, "{}: {} has {} entries, expected at most {}", path, name, found, most);
    };
    expect_at_most("advantages", advantages_.size(), sequences);
    expect_size("teacher_words", teacher_words_.size(), teacher_places_.size());
    expect_at_most("teacher_places", teacher_places_.size(), sequences);
    for (const auto of : GivenLogps::all)
        expect_at_most("log-probabilities", (logps_.*of).size(), static_cast<size_t>(learned_begins_.back()));
    check_begins(path, "sequence_begins", sequence_begins_, samples, sequences, 1);
    check_begins(path, "pair_begins", pair_begins_, samples, margins_.size(), 0);
    for (size_t i = 0; i < tokens_.size(); ++i)
        if (tokens_[i] < 0 || tokens_[i] >= vocab_size)
            fail(Exit::data, "{}: tokens[{}] is {}, expected an id in [0, {})", path, i, tokens_[i], vocab_size);
    for (size_t i = 0; i < samples; ++i) {
        try {
            const Sample read = sample(static_cast<int64_t>(i));
            check_sample(read);
            for (auto s = static_cast<size_t>(sequence_begins_[i]); const Sequence& sequence : read.sequences) {
                const int64_t learned = learned_begins_[s + 1] - learned_begins_[s], found = learned_tokens(sequence);
                require(learned == found, "learned_begins gives it {} learned tokens of {}", learned, found);
                ++s;
            }
        } catch (const Error& e) {
            fail(Exit::data, "{}: sample {}: {}", path, i, e.what());
        }
        if (length_of_sample(i) < 1) fail(Exit::data, "{}: sample {} has no token", path, i);
        if (source_files_[i] < 0 || static_cast<size_t>(source_files_[i]) >= statistics.files.size())
            fail(Exit::data, "{}: source_files[{}] is {}, expected an index below {}", path, i, source_files_[i],
                 statistics.files.size());
        if (notes_[i] < 0 || notes_[i] >> row_notes.size() != 0)
            fail(Exit::data, "{}: notes[{}] is {}, expected bits of {} notes", path, i, notes_[i], row_notes.size());
    }
}

}  // namespace colonnade
