#include "data/store/build_store.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>

#include "data/rows/kept_answers.h"
#include "data/store/store_settings.h"
#include "engine/device/error.h"
#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "engine/io/folder_lock.h"
#include "engine/io/json.h"
#include "engine/io/limits.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr size_t block_bytes = size_t{64} << 10;  ///< text per turn of a worker: about 10 ms of encoding

int64_t vocab_limit(const StoreRequest& request) {
    if (request.encode.vocab_size > 0) return request.encode.vocab_size;
    return request.tokenizer ? request.tokenizer->vocab_size() : INT32_MAX;
}

/// Size and modification time of every data file, to detect a change while it is read.
using FileStamps = std::vector<std::pair<uintmax_t, fs::file_time_type>>;
FileStamps stamps_of(const FileLists& files) {
    FileStamps stamps;
    for (const auto& of_dataset : files)
        for (const std::string& path : of_dataset) {
            std::error_code error;
            const auto size = fs::file_size(path, error);
            const auto time = error ? fs::file_time_type() : fs::last_write_time(path, error);
            if (error) fail(Exit::data, "{}: cannot read this data file: {}", path, error.message());
            stamps.emplace_back(size, time);
        }
    return stamps;
}

/// Rows that a worker encodes in one turn, of one data set.
struct Block {
    int64_t number = 0;
    std::shared_ptr<RowReader> reader;
    size_t dataset = 0;
    size_t first_file = 0;  // of the data set, among all files
    std::string text;       // the rows end to end; one string per row would keep malloc busy
    struct Place {
        size_t file = 0;  // of the data set
        int64_t number = 0;
        size_t bytes = 0;
    };
    std::vector<Place> rows;
    std::map<size_t, int64_t> rows_of_files;  // encoded rows by file, among all files
    double bytes_read = 0;                    // of all files, up to the end of this block
    size_t bytes = 0;                         // of `text`, which is freed when the block is encoded
    TokenStore part;                          // samples and counts of these rows
    ScoreTable scores;                        // of its answers
    std::vector<uint32_t> teacher;            // what a teacher says about them, as its file has it
    std::exception_ptr error;                 // error that ended the block early
};

std::shared_ptr<RowReader> open_dataset(const DatasetSpec& spec, RowKind kind, const std::vector<std::string>& files) {
    auto reader = std::make_shared<RowReader>(spec, kind, files);
    if (reader->type() == "scored" && spec.keep.empty())
        fail(Exit::config,
             "{}: rows of type scored have several answers; expected keep in the data set, which says what is learned: "
             "{}",
             spec.path, keep_forms);
    return reader;
}

class StoreBuilder {
  public:
    StoreBuilder(const StoreRequest& request, const FileLists& files, const FileStamps& stamps,
                 TeacherFileWriter* teacher)
        : request_(request), files_(files), progress_(progress_options(request, stamps)), teacher_(teacher) {
        for (size_t i = 0; i < files.size(); ++i) encoders_.emplace_back(request.tokenizer, encode_options(request, i));
        for (const auto& [size, time] : stamps) file_bytes_.push_back(static_cast<double>(size));
        for (size_t i = 0; i < files.size(); ++i)
            for (const std::string& path : files[i])
                store_.statistics.files.push_back({.path = path, .dataset = static_cast<int64_t>(i)});
    }

    TokenStore build() {
        std::vector<std::jthread> workers;
        try {
            for (int i = 0; i < std::max(1, request_.threads); ++i) workers.emplace_back([this] { work(); });
        } catch (const std::system_error&) {  // no more threads: those that exist do all of it
            if (workers.empty()) throw;
        }
        workers.clear();  // joins
        if (error_) std::rethrow_exception(error_);
        progress_.finish();
        for (const Encoder& encoder : encoders_)
            for (const std::string& marker : encoder.spelled_out())
                if (auto& all = store_.statistics.markers_spelled_out; std::ranges::find(all, marker) == all.end())
                    all.push_back(marker);
        if (request_.rows == RowKind::scored) {
            ScoredAnswers scored = scores_.finish(request_.rewards, std::ssize(files_));
            store_.set_scores(std::move(scored.advantages), std::move(scored.rewards));
            store_.statistics.rewards = std::move(scored.data_sets);
        }
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

    /// A thread of its own: no exception may leave it.
    void work() {
        try {
            TokenCache cache;
            while (auto block = take_block()) {
                encode(*block, cache);
                deliver(std::move(*block));
            }
        } catch (...) {
            stop(std::current_exception());
        }
    }

    void stop(const std::exception_ptr& error) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = error;
        delivered_.notify_all();
    }

    /// Returns the next lines, or nothing at the end of the data or after an error.
    std::optional<Block> take_block() {
        std::unique_lock lock(mutex_);
        // Blocks wait for a slow earlier block; reading waits too, so that memory stays bounded. It also waits while the
        // other workers have rows of the largest size, whose values take several times the memory of their text.
        const auto threads = static_cast<size_t>(std::max(1, request_.threads));
        const auto ahead = static_cast<int64_t>(4 * threads);
        const size_t most_bytes = limits::row_bytes + threads * limits::mib;
        delivered_.wait(lock, [&] {
            return error_ || (next_read_ - next_append_ < ahead && (in_flight_ == 0 || in_flight_ < most_bytes));
        });
        if (error_ || end_of_data_) return std::nullopt;
        Block block;
        block.number = next_read_++;
        try {
            read_rows(block);
        } catch (...) {
            block.error = std::current_exception();
            end_of_data_ = true;
        }
        block.bytes = block.text.size();
        in_flight_ += block.bytes;
        return block;
    }

    void read_rows(Block& block) {
        for (; dataset_ < files_.size(); ++dataset_, reader_.reset()) {
            const std::vector<std::string>& files = files_[dataset_];
            if (!reader_) reader_ = open_dataset(request_.datasets[dataset_], request_.rows, files);
            block.reader = reader_;
            block.dataset = dataset_;
            block.first_file = first_file_;
            for (RowText row; block.text.size() < block_bytes && reader_->next_text(row);) {
                block.text += row.text;
                block.rows.push_back({row.file, row.number, row.text.size()});
            }
            const auto file_bytes = file_bytes_.begin() + static_cast<int64_t>(first_file_);
            const double bytes = std::accumulate(file_bytes, file_bytes + std::ssize(files), 0.0);
            block.bytes_read = bytes_before_ + reader_->progress() * bytes;
            if (!block.rows.empty()) return;
            for (size_t i = 0; i < files.size(); ++i) {
                StoreStatistics::File& file = store_.statistics.files[first_file_ + i];
                file.type = reader_->type();
                file.columns = reader_->found_columns();
                file.numbering = reader_->numbering(i);
            }
            bytes_before_ += bytes;
            first_file_ += files.size();
        }
        end_of_data_ = true;
    }

    void encode(Block& block, TokenCache& cache) const {
        try {
            size_t begin = 0;
            RowText text;
            for (const auto& [file, number, bytes] : block.rows) {
                if (block.rows.size() == 1)
                    text.text = std::move(block.text);
                else
                    text.text.assign(block.text, begin, bytes);
                text.file = file;
                text.number = number;
                begin += bytes;
                const std::string place = block.reader->place(text);
                const Row row = block.reader->parse(text);
                block.part.statistics.unused_columns.add(row.unused);
                ++block.part.statistics.rows;
                const RowPlace at{place, block.first_file + file, number};
                if (request_.rows != RowKind::texts && request_.rows != RowKind::preferences)
                    add_answers(block, row, at, cache);
                else
                    add_row(block.part, encoders_[block.dataset].encode(row, place, cache), at);
                block.rows_of_files[block.first_file + file] += 1;
            }
        } catch (...) {
            block.error = std::current_exception();  // precedes an error in reading further
        }
        block.text = {};
    }

    struct RowPlace {
        std::string text;  // "path:line"
        size_t file;       // among all files
        int64_t line;
    };

    static void add_row(TokenStore& store, Encoded row, const RowPlace& at) {
        auto& statistics = store.statistics;
        statistics.longest_row = std::max(statistics.longest_row, row.full_length);
        statistics.scored_rows += row.answers > 0 ? 1 : 0;
        statistics.scored_answers += row.answers;
        statistics.kept_answers += row.kept;
        if (!row.notes.dropped() && target_weight(row.sample) == 0) row.notes.add(RowNote::dropped_nothing_learned);
        statistics.notes.add(row.notes, at.text);
        if (row.notes.dropped()) return;
        store.add(row.sample, static_cast<int32_t>(at.file), at.line, row.notes);
        for (const Sample& sample : row.more) store.add(sample, static_cast<int32_t>(at.file), at.line, row.notes);
    }

    void add_answers(Block& block, const Row& row, const RowPlace& at, TokenCache& cache) const {
        auto& statistics = block.part.statistics;
        for (size_t i = 0; i < row.answers.size(); ++i) {
            const std::string place = row.answers.size() > 1 ? fmt::format("{}: answer {}", at.text, i) : at.text;
            Encoded answer = encoders_[block.dataset].encode_answer(row.answers[i], place, cache);
            // A label or a teacher is about what is learned; a reward counts in its group.
            if (request_.rows != RowKind::scored && answer.notes.has(RowNote::answer_not_learned))
                answer.notes.add(RowNote::dropped_nothing_learned);
            statistics.longest_row = std::max(statistics.longest_row, answer.full_length);
            statistics.notes.add(answer.notes, place);
            if (answer.notes.dropped()) continue;
            if (request_.rows == RowKind::taught) add_teacher(block, answer.sample.sequences.front());
            block.part.add(answer.sample, static_cast<int32_t>(at.file), at.line, answer.notes);
            if (request_.rows == RowKind::scored)
                block.scores.add(*row.answers[i].score, static_cast<int64_t>(block.dataset), place);
        }
    }

    static void add_teacher(Block& block, Sequence& sequence) {
        TeacherCounts& counts = block.part.statistics.teacher;
        const TeacherLists& lists = sequence.teacher;
        int64_t list = 0;
        for (const auto& [begin, end, weight] : sequence.learned)
            for (int32_t token = begin; token < end; ++token, ++list) {
                const auto first = lists.ids.begin() + lists.begins[static_cast<size_t>(list)];
                const int64_t length = lists.length_of(list);
                counts.longest = std::max(counts.longest, length);
                counts.holding += std::count(first, first + length, sequence.tokens[static_cast<size_t>(token)]);
            }
        counts.tokens += lists.tokens();
        counts.entries += std::ssize(lists.ids);
        for (const float log_prob : lists.log_probs) counts.probability += std::exp(static_cast<double>(log_prob));
        sequence.teacher_place = append_words(lists, block.teacher);
    }

    /// Appends this block and the blocks that waited for it.
    void deliver(Block&& delivered) {
        std::lock_guard lock(mutex_);
        in_flight_ -= delivered.bytes;
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

    void append(Block& block) {
        if (teacher_) {
            block.part.move_teacher(teacher_->words());
            teacher_->append(block.teacher);
        }
        store_.append(block.part);
        scores_.append(block.scores);
        for (const auto& [file, rows] : block.rows_of_files) store_.statistics.files[file].rows += rows;
        progress_.update(block.bytes_read);
        progress_.fields({{fmt::format("{} samples", human_count(static_cast<double>(store_.size())))}});
    }

    const StoreRequest& request_;
    const FileLists& files_;
    std::vector<Encoder> encoders_;  // of each data set
    Progress progress_;
    TeacherFileWriter* const teacher_;  // null in stages without a teacher
    std::vector<double> file_bytes_;

    std::mutex mutex_;  // guards everything below
    std::condition_variable delivered_;
    std::shared_ptr<RowReader> reader_;
    size_t dataset_ = 0, first_file_ = 0;
    double bytes_before_ = 0;
    int64_t next_read_ = 0, next_append_ = 0;
    size_t in_flight_ = 0;  // bytes of rows that workers have
    bool end_of_data_ = false;
    std::map<int64_t, Block> waiting_;
    std::exception_ptr error_;
    TokenStore store_;
    ScoreTable scores_;
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

/// Answers may be without a learned token, but not all of them.
void check_learned(const StoreStatistics& statistics, const std::string& name) {
    if (statistics.learned_tokens > 0) return;
    fail(Exit::data,
         "nothing is learned of the {} answers for {}: their masks select no token, or all were cut off and "
         "mask_truncated_completions leaves them out",
         statistics.samples, name);
}

void check_unchanged(const StoreStatistics& statistics, const FileLists& files, const FileStamps& before) {
    const FileStamps now = stamps_of(files);
    for (size_t i = 0; i < now.size(); ++i) {
        if (now[i] != before[i])
            fail(Exit::data, "{}: the file changed while it was read; run again when it is complete",
                 statistics.files[i].path);
    }
}

/// The file of a teacher, beside the store.
std::string teacher_path(const std::string& store) {
    return fs::path(store).replace_extension(".teacher");
}

void open_teacher(const StoreRequest& request, StoreResult& result) {
    if (request.rows != RowKind::taught) return;
    const std::string path = teacher_path(result.path);
    if (!path_exists(path))
        fail(Exit::data, "{} is missing; delete {} to build both again from the data", path, result.path);
    result.teacher =
        std::make_shared<TeacherFile>(path, result.key, result.store.statistics.teacher.words, vocab_limit(request));
}

}  // namespace

StoreResult build_store(const StoreRequest& request) {
    if (request.datasets.empty()) fail(Exit::config, "no data sets are given for {}", request.name);
    FileLists files;
    std::vector<std::string> left_out;
    for (const DatasetSpec& spec : request.datasets) {
        DataFiles found = data_files(spec);
        files.push_back(std::move(found.paths));
        left_out.insert(left_out.end(), found.left_out.begin(), found.left_out.end());
    }
    const FileStamps stamps = stamps_of(files);
    const std::string settings = store_settings(request, files).dump();
    StoreResult result;
    result.key = sha256(settings);
    result.path = fs::path(request.folder) / fmt::format("{}-{}.h5", request.name, result.key.substr(0, 16));
    const std::string stem = request.name + "-";
    // It may hold what a killed build of another key has left.
    std::optional<SharedFolder> share(std::in_place, request.folder, std::array<std::string_view, 1>{stem});
    result.reused = path_exists(result.path);
    if (result.reused) {
        result.store = TokenStore::open(result.path, result.key, vocab_limit(request));
        open_teacher(request, result);
        return result;
    }
    make_folders(request.folder);
    share.emplace(request.folder, std::array<std::string_view, 1>{stem});
    std::optional<TeacherFileWriter> teacher;
    if (request.rows == RowKind::taught) teacher.emplace(teacher_path(result.path), result.key);
    const auto start = std::chrono::steady_clock::now();
    result.store = StoreBuilder(request, files, stamps, teacher ? &*teacher : nullptr).build();
    result.store.statistics.left_out = std::move(left_out);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.tokens_per_second = static_cast<double>(result.store.tokens()) / result.seconds;
    check_not_empty(result.store.statistics, request.name);
    check_learned(result.store.statistics, request.name);
    check_unchanged(result.store.statistics, files, stamps);
    result.store.settings = settings;
    if (teacher) {
        result.store.statistics.teacher.words = teacher->words();
        teacher->commit();
    }
    result.store.write(result.path, result.key);
    open_teacher(request, result);
    return result;
}

}  // namespace colonnade
