#include "data/store/store.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <span>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

constexpr const char* format_name = "colonnade token store";

std::vector<uint8_t> text_bytes(const std::string& text) {
    return {text.begin(), text.end()};
}

/// Throws unless `begins` divides [0, total) into consecutive non-empty ranges.
void check_begins(const std::string& path, const char* name, const std::vector<int64_t>& begins, int64_t total) {
    if (begins.empty() || begins.front() != 0 || begins.back() != total) {
        fail(Exit::data, "{}: {} does not run from 0 to {}", path, name, total);
    }
    const auto bad = std::adjacent_find(begins.begin(), begins.end(), [](int64_t a, int64_t b) { return a >= b; });
    if (bad != begins.end())
        fail(Exit::data, "{}: {}[{}] is {}, expected more than {}", path, name, bad - begins.begin() + 1, bad[1],
             bad[0]);
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

/// Calls body(name, values) for every numeric dataset, in file order.
template <typename Store, typename Body>
void TokenStore::for_each_dataset(Store& store, Body&& body) {
    body("tokens", store.tokens_);
    body("weights", store.weights_);
    body("sample_begins", store.sample_begins_);
    body("branches", store.branches_);
    body("branch_begins", store.branch_begins_);
    body("margins", store.margins_);
    body("source_files", store.source_files_);
    body("source_lines", store.source_lines_);
}

void TokenStore::add(const Sample& sample, int32_t file, int64_t line) {
    tokens_.insert(tokens_.end(), sample.tokens.begin(), sample.tokens.end());
    weights_.insert(weights_.end(), sample.weights.begin(), sample.weights.end());
    branches_.insert(branches_.end(), sample.branch_begins.begin(), sample.branch_begins.end());
    sample_begins_.push_back(static_cast<int64_t>(tokens_.size()));
    branch_begins_.push_back(static_cast<int64_t>(branches_.size()));
    margins_.push_back(sample.margin);
    source_files_.push_back(file);
    source_lines_.push_back(line);
}

void TokenStore::append(const TokenStore& later) {
    const auto join_begins = [](std::vector<int64_t>& begins, const std::vector<int64_t>& more) {
        const int64_t end = begins.back();
        for (size_t i = 1; i < more.size(); ++i) begins.push_back(end + more[i]);
    };
    const auto join = [](auto& values, const auto& more) { values.insert(values.end(), more.begin(), more.end()); };
    join_begins(sample_begins_, later.sample_begins_);
    join_begins(branch_begins_, later.branch_begins_);
    join(tokens_, later.tokens_);
    join(weights_, later.weights_);
    join(branches_, later.branches_);
    join(margins_, later.margins_);
    join(source_files_, later.source_files_);
    join(source_lines_, later.source_lines_);
    add_rows(statistics, later.statistics);
}

size_t TokenStore::bytes() const {
    size_t sum = 0;
    for_each_dataset(*this, [&](const char*, const auto& values) { sum += values.size() * sizeof(values[0]); });
    return sum;
}

Sample TokenStore::sample(int64_t i) const {
    const auto slice = [at = static_cast<size_t>(i)](const auto& values, const std::vector<int64_t>& begins) {
        using Values = std::decay_t<decltype(values)>;
        return Values(values.begin() + begins[at], values.begin() + begins[at + 1]);
    };
    return {slice(tokens_, sample_begins_), slice(weights_, sample_begins_), slice(branches_, branch_begins_),
            margins_[static_cast<size_t>(i)]};
}

std::vector<int64_t> TokenStore::lengths() const {
    std::vector<int64_t> lengths(static_cast<size_t>(size()));
    for (size_t i = 0; i < lengths.size(); ++i) lengths[i] = sample_begins_[i + 1] - sample_begins_[i];
    return lengths;
}

std::vector<double> TokenStore::target_weights() const {
    std::vector<double> sums(static_cast<size_t>(size()));
    const std::span weights(weights_);
    const std::span branches(branches_);
    const auto slice = [](const auto& values, const std::vector<int64_t>& begins, size_t i) {
        return values.subspan(static_cast<size_t>(begins[i]), static_cast<size_t>(begins[i + 1] - begins[i]));
    };
    for (size_t i = 0; i < sums.size(); ++i)
        sums[i] = target_weight(slice(weights, sample_begins_, i), slice(branches, branch_begins_, i));
    return sums;
}

std::vector<double> TokenStore::pairs() const {
    std::vector<double> counts(static_cast<size_t>(size()));
    for (size_t i = 0; i < counts.size(); ++i)
        counts[i] = pair_count(static_cast<size_t>(branch_begins_[i + 1] - branch_begins_[i]));
    return counts;
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
    statistics.learned_tokens = std::accumulate(weights.begin(), weights.end(), 0.0);
    statistics.lengths = length_table(lengths());
    count_pairs();
    for (auto& file : statistics.files) file.samples = 0;
    for (const int32_t file : source_files_) ++statistics.files[static_cast<size_t>(file)].samples;
}

void TokenStore::count_pairs() {
    StoreStatistics& s = statistics;
    s.pairs = s.answers = s.pair_tokens = s.repeated_tokens = 0;
    for (size_t i = 0; i < source_files_.size(); ++i) {
        const int64_t branches = branch_begins_[i + 1] - branch_begins_[i];
        if (branches < 2) continue;
        const int64_t tokens = sample_begins_[i + 1] - sample_begins_[i];
        const int64_t stem = branches_[static_cast<size_t>(branch_begins_[i])];
        ++s.pairs;
        s.answers += branches;
        s.pair_tokens += tokens;
        s.repeated_tokens += tokens + (branches - 1) * stem;
    }
}

TokenStore TokenStore::select(const std::vector<int64_t>& samples) const {
    TokenStore part;
    part.settings = settings;
    part.statistics = statistics;
    for (const int64_t i : samples) {
        const auto at = static_cast<size_t>(i);
        part.add(sample(i), source_files_[at], source_lines_[at]);
    }
    part.count_samples();
    return part;
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
    for_each_dataset(*this, put);
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
    for_each_dataset(*this, get);
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
    const auto expect_size = [&](const char* name, size_t found, size_t expected) {
        if (found != expected) fail(Exit::data, "{}: {} has {} entries, expected {}", path, name, found, expected);
    };
    expect_size("weights", weights_.size(), tokens_.size());
    expect_size("sample_begins", sample_begins_.size(), samples + 1);
    expect_size("branch_begins", branch_begins_.size(), samples + 1);
    expect_size("margins", margins_.size(), samples);
    expect_size("source_lines", source_lines_.size(), samples);
    check_begins(path, "sample_begins", sample_begins_, tokens());
    check_begins(path, "branch_begins", branch_begins_, static_cast<int64_t>(branches_.size()));
    for (size_t i = 0; i < tokens_.size(); ++i) {
        if (tokens_[i] < 0 || tokens_[i] >= vocab_size)
            fail(Exit::data, "{}: tokens[{}] is {}, expected an id in [0, {})", path, i, tokens_[i], vocab_size);
        if (!(weights_[i] >= 0) || std::isinf(weights_[i]))
            fail(Exit::data, "{}: weights[{}] is {}, expected a finite number >= 0", path, i, weights_[i]);
    }
    for (size_t i = 0; i < samples; ++i) {
        const auto first = branches_.begin() + branch_begins_[i], last = branches_.begin() + branch_begins_[i + 1];
        const int64_t length = sample_begins_[i + 1] - sample_begins_[i];
        if (*first < 0 || last[-1] > length || !std::is_sorted(first, last)) {
            fail(Exit::data, "{}: the branches of sample {} are not in order within its {} tokens", path, i, length);
        }
        if (!std::isfinite(margins_[i]))
            fail(Exit::data, "{}: margins[{}] is {}, expected a finite number", path, i, margins_[i]);
        if (source_files_[i] < 0 || static_cast<size_t>(source_files_[i]) >= statistics.files.size()) {
            fail(Exit::data, "{}: source_files[{}] is {}, expected an index below {}", path, i, source_files_[i],
                 statistics.files.size());
        }
    }
}

}  // namespace colonnade
