#include "data/store/build_store.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/device/error.h"
#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr size_t block_bytes = size_t{64} << 10;  ///< text per turn of a worker: about 10 ms of encoding

/// Every input that the content of the store depends on. The structured bindings fail to compile when a field is added,
/// so that none can be forgotten here.
Json settings_of(const StoreRequest& request) {
    Json datasets = Json::array();
    for (const auto& spec : request.datasets) {
        const auto& [path, type, columns, ignore_columns] = spec;
        datasets.push_back({{"path", path},
                            {"type", type},
                            {"columns", columns},
                            {"ignore_columns", ignore_columns},
                            {"sha256", sha256_file(path)}});
    }
    const auto& [chat_template, max_length, train_on_prompt, roles_to_train, train_on_eos, mask_history, add_bos,
                 add_eos, excess_length, vocab_size, sample_length, max_answers] = request.encode;
    return {{"store_format", TokenStore::format_version},
            {"rows", static_cast<int>(request.rows)},
            {"datasets", datasets},
            {"tokenizer", request.tokenizer ? request.tokenizer->content_hash() : "none"},
            {"chat_template", chat_template},
            {"max_length", max_length},
            {"train_on_prompt", train_on_prompt},
            {"roles_to_train", roles_to_train},
            {"train_on_eos", static_cast<int>(train_on_eos)},
            {"mask_history", mask_history},
            {"add_bos", add_bos},
            {"add_eos", add_eos},
            {"excess_length", static_cast<int>(excess_length)},
            {"vocab_size", vocab_size},
            {"sample_length", sample_length},
            {"max_answers", max_answers}};
}

int64_t vocab_limit(const StoreRequest& request) {
    if (request.encode.vocab_size > 0) return request.encode.vocab_size;
    return request.tokenizer ? request.tokenizer->vocab_size() : INT32_MAX;
}

/// Size and modification time of every data file, to detect a change while it is read.
using FileStamps = std::vector<std::pair<uintmax_t, fs::file_time_type>>;
FileStamps stamps_of(const std::vector<DatasetSpec>& datasets) {
    FileStamps stamps;
    for (const auto& spec : datasets) {
        std::error_code error;
        const auto size = fs::file_size(spec.path, error);
        if (error) fail(Exit::data, "{}: cannot read this data file: {}", spec.path, error.message());
        stamps.emplace_back(size, fs::last_write_time(spec.path));
    }
    return stamps;
}

/// Lines that a worker encodes in one turn.
struct Block {
    int64_t number = 0;
    size_t file = 0;
    std::shared_ptr<RowReader> reader;
    std::string text;                               // the lines end to end; one string per line would keep malloc busy
    std::vector<std::pair<int64_t, size_t>> lines;  // line number, bytes
    double bytes_read = 0;                          // of all files, up to the end of this block
    TokenStore part;                                // samples and counts of these lines
    std::exception_ptr error;                       // error that ended the block early
};

class StoreBuilder {
  public:
    StoreBuilder(const StoreRequest& request, const FileStamps& stamps)
        : request_(request), encoder_(request.tokenizer, request.encode), progress_(progress_options(request, stamps)) {
        for (const auto& [size, time] : stamps) file_bytes_.push_back(static_cast<double>(size));
        for (const auto& spec : request.datasets) store_.statistics.files.push_back({spec.path, spec.type, ""});
    }

    TokenStore build() {
        std::vector<std::jthread> workers;
        for (int i = 0; i < std::max(1, request_.threads); ++i) workers.emplace_back([this] { work(); });
        workers.clear();  // joins
        if (error_) std::rethrow_exception(error_);
        progress_.finish();
        store_.statistics.markers_spelled_out = encoder_.spelled_out();
        store_.count_samples();
        return std::move(store_);
    }

  private:
    static ProgressOptions progress_options(const StoreRequest& request, const FileStamps& stamps) {
        ProgressOptions options = request.progress;
        options.label = "tokenising " + request.name;
        options.unit = "B";
        options.total = options.initial = 0;
        for (const auto& [size, time] : stamps) options.total += static_cast<double>(size);
        return options;
    }

    void work() {
        WordCache words;
        while (auto block = take_block()) {
            encode(*block, words);
            deliver(std::move(*block));
        }
    }

    /// Returns the next lines, or nothing at the end of the data or after an error.
    std::optional<Block> take_block() {
        std::unique_lock lock(mutex_);
        // Blocks wait for a slow earlier block; reading waits too, so that memory stays bounded.
        const int64_t ahead = 4 * static_cast<int64_t>(std::max(1, request_.threads));
        delivered_.wait(lock, [&] { return error_ || next_read_ - next_append_ < ahead; });
        if (error_ || end_of_data_) return std::nullopt;
        Block block;
        block.number = next_read_++;
        try {
            read_lines(block);
        } catch (...) {
            block.error = std::current_exception();
            end_of_data_ = true;
        }
        return block;
    }

    void read_lines(Block& block) {
        for (; file_ < request_.datasets.size(); ++file_, reader_.reset()) {
            if (!reader_) reader_ = std::make_shared<RowReader>(request_.datasets[file_], request_.rows);
            block.file = file_;
            block.reader = reader_;
            std::string line;
            int64_t number = 0;
            while (block.text.size() < block_bytes && reader_->next_line(line, number)) {
                block.text += line;
                block.lines.emplace_back(number, line.size());
            }
            block.bytes_read = bytes_before_ + reader_->progress() * file_bytes_[file_];
            if (!block.lines.empty()) return;
            store_.statistics.files[file_].type = reader_->type();
            store_.statistics.files[file_].columns = reader_->found_columns();
            bytes_before_ += file_bytes_[file_];
        }
        end_of_data_ = true;
    }

    void encode(Block& block, WordCache& words) const {
        try {
            size_t begin = 0;
            std::string line;
            for (const auto& [number, bytes] : block.lines) {
                line.assign(block.text, begin, bytes);
                begin += bytes;
                const std::string place = fmt::format("{}:{}", request_.datasets[block.file].path, number);
                const Row row = block.reader->parse(line, number);
                block.part.statistics.unused_columns.add(row.unused);
                add_row(block.part, encoder_.encode(row, place, &words), place, block.file, number);
            }
        } catch (...) {
            block.error = std::current_exception();  // precedes an error in reading further
        }
    }

    static void add_row(TokenStore& store, Encoded row, const std::string& place, size_t file, int64_t line) {
        auto& statistics = store.statistics;
        ++statistics.rows;
        statistics.longest_row = std::max(statistics.longest_row, row.full_length);
        if (!row.notes.dropped() && target_weight(row.sample.weights, row.sample.branch_begins) == 0)
            row.notes.add(RowNote::dropped_nothing_learned);
        statistics.notes.add(row.notes, place);
        if (!row.notes.dropped()) store.add(row.sample, static_cast<int32_t>(file), line);
    }

    /// Appends this block and the blocks that waited for it.
    void deliver(Block&& delivered) {
        std::lock_guard lock(mutex_);
        try {
            waiting_.emplace(delivered.number, std::move(delivered));
            for (auto next = waiting_.begin(); next != waiting_.end() && next->first == next_append_;
                 next = waiting_.erase(next)) {
                append(next->second);
                if (next->second.error) std::rethrow_exception(next->second.error);
                ++next_append_;
            }
        } catch (...) {
            if (!error_) error_ = std::current_exception();
        }
        delivered_.notify_all();
    }

    void append(const Block& block) {
        store_.append(block.part);
        store_.statistics.files[block.file].rows += block.part.statistics.rows;
        progress_.update(block.bytes_read);
        progress_.suffix(fmt::format("{} samples", human_count(static_cast<double>(store_.size()))));
    }

    const StoreRequest& request_;
    const Encoder encoder_;
    Progress progress_;
    std::vector<double> file_bytes_;

    std::mutex mutex_;  // guards everything below
    std::condition_variable delivered_;
    std::shared_ptr<RowReader> reader_;
    size_t file_ = 0;
    double bytes_before_ = 0;
    int64_t next_read_ = 0, next_append_ = 0;
    bool end_of_data_ = false;
    std::map<int64_t, Block> waiting_;
    std::exception_ptr error_;
    TokenStore store_;
};

void check_not_empty(const StoreStatistics& statistics, const std::string& name) {
    if (statistics.samples > 0) return;
    std::string reasons;
    for (const RowNoteInfo& info : row_notes)
        if (const int64_t count = statistics.notes[info.note].count; count > 0)
            reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", count, info.label);
    fail(Exit::data, "no sample is left for {}: {} {} read (the longest has {} tokens), all dropped: {}", name,
         statistics.rows, statistics.rows == 1 ? "row" : "rows", statistics.longest_row, reasons);
}

void check_unchanged(const std::vector<DatasetSpec>& datasets, const FileStamps& before) {
    const FileStamps now = stamps_of(datasets);
    for (size_t i = 0; i < now.size(); ++i) {
        if (now[i] != before[i])
            fail(Exit::data, "{}: the file changed while it was read; run again when it is complete", datasets[i].path);
    }
}

void make_folder(const std::string& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(Exit::storage, "cannot create the folder {}: {}", folder, error.message());
}

}  // namespace

StoreResult build_store(const StoreRequest& request) {
    if (request.datasets.empty()) fail(Exit::config, "no data sets are given for {}", request.name);
    const FileStamps stamps = stamps_of(request.datasets);
    const std::string settings = settings_of(request).dump();
    StoreResult result;
    result.key = sha256(settings);
    result.path = fs::path(request.folder) / fmt::format("{}-{}.h5", request.name, result.key.substr(0, 16));
    result.reused = fs::exists(result.path);
    if (result.reused) {
        result.store = TokenStore::open(result.path, result.key, vocab_limit(request));
        return result;
    }
    make_folder(request.folder);
    const auto start = std::chrono::steady_clock::now();
    result.store = StoreBuilder(request, stamps).build();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.tokens_per_second = static_cast<double>(result.store.tokens()) / result.seconds;
    check_not_empty(result.store.statistics, request.name);
    check_unchanged(request.datasets, stamps);
    result.store.settings = settings;
    result.store.write(result.path, result.key);
    return result;
}

}  // namespace colonnade
