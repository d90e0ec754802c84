#include "engine/hub/download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "engine/io/sha256.h"
#include "engine/io/system_call.h"

namespace colonnade {
namespace {

constexpr size_t most_threads = 4;

/// What the threads share.
class Work {
  public:
    explicit Work(const DownloadRequest& of) : request(of) {}

    const DownloadRequest& request;
    std::atomic<int64_t> bytes = 0;  ///< on disk
    std::atomic<size_t> next = 0;    ///< file
    std::atomic<bool> stop = false;

    void say(std::string line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
    }
    std::vector<std::string> take_lines() {
        const std::lock_guard lock(mutex_);
        return std::exchange(lines_, {});
    }
    void fail_with(std::exception_ptr error) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = error;
        stop = true;
    }
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }
    /// Throws if another file has failed: nothing more is worth loading.
    void sleep(double seconds) const {
        const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
        for (check(); std::chrono::steady_clock::now() < end; check())
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    void check() const {
        if (stop) fail(Exit::data, "stopped");
    }
    void thread_ends() {
        const std::lock_guard lock(mutex_);
        ++ended_;
        changed_.notify_all();
    }
    /// True when all threads have ended; waits for a moment.
    bool wait_for(size_t threads) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::milliseconds(100), [&] { return ended_ == threads; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::string> lines_;
    std::exception_ptr error_;
    size_t ended_ = 0;
};

/// The .incomplete file of one blob, with the hash of what it holds.
class Part {
  public:
    Part(const HubFile& file, std::string path, Work& work) : file_(file), path_(std::move(path)), work_(work) {
        fd_ = uninterrupted([&] { return ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666); });
        if (fd_ < 0) refused("create", path_);
        start_hash();
        read_what_is_there();
    }
    ~Part() {
        if (fd_ >= 0) ::close(fd_);
    }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

    uint64_t size() const { return size_; }

    void append(std::string_view bytes) {
        for (std::string_view rest = bytes; !rest.empty();) {
            const ssize_t n =
                uninterrupted([&] { return ::pwrite(fd_, rest.data(), rest.size(), static_cast<off_t>(size_)); });
            if (n < 0)
                fail(Exit::storage, "{}: cannot write: {}; what is there stays, the next start continues", path_,
                     std::strerror(errno));
            hash_->update(rest.data(), static_cast<size_t>(n));
            size_ += static_cast<uint64_t>(n);
            work_.bytes += n;
            rest.remove_prefix(static_cast<size_t>(n));
        }
    }
    void start_again() {
        if (::ftruncate(fd_, 0) != 0) refused("truncate", path_);
        work_.bytes -= static_cast<int64_t>(size_);
        size_ = 0;
        start_hash();
    }
    /// Whether the bytes are those of the file. Call it once after the last append().
    bool is_right() const { return hash_->hex() == file_.blob(); }
    void move_to(const std::string& blob) {
        if (::fsync(fd_) != 0) refused("fsync", path_);
        if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) refused("close", path_);
        if (::rename(path_.c_str(), blob.c_str()) != 0) refused("rename", path_);
        sync_path(blob.substr(0, blob.rfind('/')));
    }
    void remove() const { ::unlink(path_.c_str()); }

  private:
    void start_hash() {
        if (!file_.sha256.empty()) {
            hash_ = std::make_unique<Sha256>();
            return;
        }
        hash_ = std::make_unique<Sha1>();
        const std::string head = fmt::format("blob {}", file_.size);
        hash_->update(head.c_str(), head.size() + 1);  // with its zero byte
    }
    void read_what_is_there() {
        struct stat info {};
        if (::fstat(fd_, &info) != 0) refused("read", path_);
        if (static_cast<uint64_t>(info.st_size) > file_.size) {
            if (::ftruncate(fd_, 0) != 0) refused("truncate", path_);
            return;
        }
        std::string piece(limits::mib, '\0');
        while (true) {
            const ssize_t n =
                uninterrupted([&] { return ::pread(fd_, piece.data(), piece.size(), static_cast<off_t>(size_)); });
            if (n < 0) refused("read", path_);
            if (n == 0) return;
            hash_->update(piece.data(), static_cast<size_t>(n));
            size_ += static_cast<uint64_t>(n);
            work_.bytes += n;
        }
    }

    const HubFile& file_;
    std::string path_;
    Work& work_;
    int fd_ = -1;
    uint64_t size_ = 0;
    std::unique_ptr<HashInPieces> hash_;
};

/// Downloads one file after the other.
class Worker {
  public:
    explicit Worker(Work& work)
        : work_(work), request_(work.request), http_(request_.settings), api_(request_.settings, request_.name) {}

    void run() {
        try {
            for (size_t i = work_.next++; i < request_.files.size() && !work_.stop; i = work_.next++)
                load(request_.files[i]);
        } catch (...) {
            work_.fail_with(std::current_exception());
        }
        work_.thread_ends();
    }

  private:
    void load(const HubFile& file) {
        bool said = false;
        const HubCache::Lock lock(request_.cache, file, [&] {
            work_.check();
            if (!std::exchange(said, true))
                work_.say(fmt::format("waiting for another process that downloads {}", file.path));
        });
        if (request_.cache.has_blob(file)) {
            work_.bytes += static_cast<int64_t>(file.size);
        } else {
            Part part(file, request_.cache.incomplete(file), work_);
            // What an earlier process left may be damaged, as after a power cut: then the whole file comes again.
            bool right = false, continued = part.size() > 0;
            for (fill(part, file); !(right = part.is_right()) && continued; continued = false) {
                work_.say(fmt::format("{}: what was there of it is damaged; it comes again", file.path));
                part.start_again();
                fill(part, file);
            }
            if (!right) {
                part.remove();
                fail(Exit::data, "{}: the downloaded bytes do not have the hash {} of the hub's list; nothing is kept",
                     api_.file_url(request_.commit, file.path), file.blob());
            }
            part.move_to(request_.cache.blob(file));
        }
        request_.cache.link(request_.commit, file);
    }

    /// Loads the rest. Tries again as long as bytes come.
    void fill(Part& part, const HubFile& file) {
        const std::string url = api_.file_url(request_.commit, file.path);
        for (int tried = 1; part.size() < file.size; ++tried) {
            const uint64_t before = part.size();
            const HttpAnswer answer =
                http_.send({.url = url, .from = before, .sink = sink(part, file, url), .cancelled = [&] {
                                return work_.stop.load();
                            }});
            work_.check();
            if (part.size() == file.size) return;
            if (answer.status == 416) part.start_again();  // the hub knows no such part
            // The address that a redirect leads to is valid for a time only: the hub gives a new one.
            const bool expired = answer.status == 403 && answer.header("x-error-code").empty() && before > 0;
            const bool again = answer.good() || answer.may_recover || answer.status == 416 || expired;
            if (part.size() > before) tried = 0;
            if (!again || tried >= request_.settings.tries) {
                if (!answer.good()) api_.refuse(answer, file.path);
                fail(Exit::data, "{}: the download ends after {} of {} bytes", url, part.size(), file.size);
            }
            const double wait = wait_before_retry(request_.settings, answer, std::max(tried, 1));
            work_.say(fmt::format("{}: {} at byte {}; trying again in {:.0f} s", file.path,
                                  !answer.failure.empty() ? answer.failure : fmt::format("status {}", answer.status),
                                  part.size(), wait));
            work_.sleep(wait);
        }
    }

    std::function<void(const HttpAnswer&, std::string_view)> sink(Part& part, const HubFile& file,
                                                                  const std::string& url) {
        return [&part, &file, url, first = true](const HttpAnswer& answer, std::string_view bytes) mutable {
            if (std::exchange(first, false)) {
                const std::string expected = fmt::format("bytes {}-", part.size());
                if (answer.status == 200 && part.size() > 0) part.start_again();  // the whole file comes
                if (answer.status == 206 && !answer.header("content-range").starts_with(expected))
                    fail(Exit::data, "{}: asked was for {}, the answer is {}", url, expected,
                         answer.header("content-range"));
                const std::string length = answer.header("content-length");
                if (!length.empty() && std::strtoull(length.c_str(), nullptr, 10) != file.size - part.size())
                    fail(Exit::data, "{}: {} bytes come, expected {} by the hub's list", url, length,
                         file.size - part.size());
            }
            if (bytes.size() > file.size - part.size())
                fail(Exit::data, "{}: more bytes come than the {} of the hub's list", url, file.size);
            part.append(bytes);
        };
    }

    Work& work_;
    const DownloadRequest& request_;
    Http http_;
    HubApi api_;
};

/// Bytes of the files, and how many of them are on disk.
struct Amount {
    uint64_t total = 0, there = 0;
};

Amount amount_of(const DownloadRequest& request) {
    Amount amount;
    for (const HubFile& file : request.files) {
        struct stat info {};
        amount.total += file.size;
        if (request.cache.has_blob(file))
            amount.there += file.size;
        else if (::stat(request.cache.incomplete(file).c_str(), &info) == 0)
            amount.there += std::min(static_cast<uint64_t>(info.st_size), file.size);
    }
    return amount;
}

void require_space(const DownloadRequest& request, const Amount& amount) {
    struct statvfs info {};
    if (::statvfs(request.cache.folder().c_str(), &info) != 0) return;
    const uint64_t free = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
    if (amount.total - amount.there > free)
        fail(Exit::storage, "{}: {} needs {} more, the disk has {} free; HF_HOME chooses another place",
             request.cache.folder(), request.name.text(), human_bytes(amount.total - amount.there), human_bytes(free));
}

}  // namespace

void download(const DownloadRequest& request) {
    request.cache.create();
    const Amount amount = amount_of(request);
    require_space(request, amount);
    ProgressOptions options = request.settings.progress;
    options.label = request.name.repository;
    options.total = static_cast<double>(amount.total);
    options.initial = static_cast<double>(amount.there);
    options.unit = "B";
    Progress progress(options);

    Work work(request);
    std::vector<std::unique_ptr<Worker>> workers;
    for (size_t i = 0; i < std::min(most_threads, request.files.size()); ++i)
        workers.push_back(std::make_unique<Worker>(work));
    std::vector<std::thread> threads;
    for (const auto& worker : workers) threads.emplace_back([&worker] { worker->run(); });
    for (bool ended = false; !ended;) {
        ended = work.wait_for(threads.size());
        for (const std::string& line : work.take_lines()) progress.print("note: " + line);
        progress.update(static_cast<double>(work.bytes));
    }
    for (std::thread& thread : threads) thread.join();
    work.rethrow();
    progress.finish();
}

}  // namespace colonnade
