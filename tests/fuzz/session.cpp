#include "tests/fuzz/session.h"

#include <omp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <set>

#include "engine/io/sha256.h"
#include "tests/fuzz/edges.h"
#include "tests/fuzz/limits_of_child.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int most_failures = 5;
constexpr int exit_of_report = 77;  ///< of a child whose reader threw what it should not throw
constexpr size_t largest_kept = 1 << 17;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// What children tell, in memory that outlives them.
struct Progress {
    size_t unmutated = 0;  ///< seeds and kept inputs of older sessions read so far
    bool mutating = false;
    int64_t inputs = 0, kept = 0;
    double slowest = 0;
    size_t edges_of_seeds = 0;
    edges::Seen seen = {};
};

std::vector<std::string> contents_of(const std::string& folder) {
    std::vector<std::string> paths, contents;
    if (!fs::is_directory(folder)) return {};
    for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
    std::ranges::sort(paths);
    for (const std::string& path : paths) contents.push_back(slurp(path));
    return contents;
}

/// A folder with the files beside the mutated one, and that one.
void write_input(const Format& format, const std::string& folder, const std::string& bytes, bool mend) {
    spill(folder + "/" + format.file, bytes);
    if (mend && format.mend) format.mend(folder);
}

void lay_out(const Format& format, const std::string& folder) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    if (!format.beside.empty()) fs::copy(format.beside, folder, fs::copy_options::recursive);
}

/// The folders of a session, removed at its end.
struct Scratch {
    std::string root;
    Scratch() {
        std::string name = fs::temp_directory_path() / "colonnade_fuzz_XXXXXX";
        require(mkdtemp(name.data()), "{}: {}", name, std::strerror(errno));
        root = name;
        for (const std::string& folder : {made(), kept()}) fs::create_directory(folder);
    }
    ~Scratch() { fs::remove_all(root); }
    std::string made() const { return root + "/made"; }
    std::string kept() const { return root + "/kept"; }
    std::string input() const { return root + "/input"; }
};

class Session {
  public:
    Session(const NamedFormat& format, const FuzzRequest& request)
        : name_(format.name), request_(request), format_(format.make(scratch_.made())) {
        void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        require(memory != MAP_FAILED, "mmap: {}", std::strerror(errno));
        progress_ = new (memory) Progress;
        pool_ = format_.seeds;
        for (const std::string& folder : {golden_file("corpus/" + name_), request.kept})
            for (std::string& bytes : contents_of(folder)) pool_.push_back(std::move(bytes));
        require(!pool_.empty(), "format {} has no seed", name_);
    }
    ~Session() { munmap(progress_, sizeof(Progress)); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    FuzzOutcome run() {
        FuzzOutcome outcome;
        while (std::ssize(outcome.failures) < most_failures) {
            lay_out(format_, scratch_.input());
            const int status = run_child(outcome.failures.size());
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
            outcome.failures.push_back(keep_failure(status));
            if (!progress_->mutating) failing_.insert(progress_->unmutated++);
        }
        outcome.inputs = progress_->inputs;
        outcome.kept = progress_->kept;
        outcome.edges_of_seeds = progress_->edges_of_seeds;
        outcome.edges = edges::edges_in(progress_->seen);
        outcome.seconds = seconds_since(begin_);
        outcome.slowest = progress_->slowest;
        return outcome;
    }

    void distil(const std::string& folder, size_t most) {
        lay_out(format_, scratch_.input());
        read_unmutated();
        std::vector<fs::path> paths;
        for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
        std::ranges::sort(paths, {}, [](const fs::path& path) { return std::pair(fs::file_size(path), path); });
        std::vector<std::pair<size_t, fs::path>> gains;
        for (const fs::path& path : paths) {
            const size_t before = edges::edges_in(progress_->seen);
            read(slurp(path), true);
            gains.emplace_back(edges::edges_in(progress_->seen) - before, path);
        }
        std::ranges::sort(gains, std::greater());
        for (size_t i = 0; i < gains.size(); ++i)
            if (i >= most || gains[i].first == 0) fs::remove(gains[i].second);
    }

  private:
    /// How it ended: the status of waitpid().
    int run_child(size_t number) {
        std::fflush(nullptr);
        const pid_t child = fork();
        require(child >= 0, "fork: {}", std::strerror(errno));
        if (child == 0) {
            const rlimit no_core{0, 0};
            setrlimit(RLIMIT_CORE, &no_core);
            omp_set_num_threads(1);
            read_unmutated();
            read_mutated(request_.seed * 1000 + number);
            _exit(0);
        }
        int status = 0;
        require(waitpid(child, &status, 0) == child, "waitpid: {}", std::strerror(errno));
        return status;
    }

    bool enough() const { return progress_->inputs >= request_.inputs || seconds_since(begin_) >= request_.seconds; }

    void read_unmutated() {
        for (; progress_->unmutated < pool_.size(); ++progress_->unmutated) read(pool_[progress_->unmutated], true);
        if (!progress_->mutating) progress_->edges_of_seeds = edges::edges_in(progress_->seen);
        progress_->mutating = true;
    }

    void read_mutated(uint64_t seed) {
        std::vector<std::string> pool;
        for (size_t i = 0; i < pool_.size(); ++i)
            if (!failing_.contains(i)) pool.push_back(pool_[i]);
        for (std::string& bytes : contents_of(scratch_.kept())) pool.push_back(std::move(bytes));  // of a child before
        if (pool.empty()) return;
        Random random(seed);
        while (!enough()) {
            // The newest have led to what nothing led to before.
            const size_t newest = std::min<size_t>(pool.size(), 32);
            const size_t chosen = request_.guidance == Guidance::coverage && below(random, 2)
                                      ? pool.size() - 1 - below(random, newest)
                                      : below(random, pool.size());
            const std::string bytes = mutated(format_, pool, chosen, random);
            const bool new_edge = read(bytes, below(random, 8) > 0);
            ++progress_->inputs;
            if (!new_edge || bytes.size() > largest_kept) continue;
            ++progress_->kept;
            if (request_.guidance == Guidance::blind) continue;
            pool.push_back(bytes);
            keep(bytes);
        }
    }

    void keep(const std::string& bytes) const {
        const std::string name = sha256(bytes).substr(0, 16);
        spill(scratch_.kept() + "/" + name, bytes);
        if (!request_.kept.empty()) spill(request_.kept + "/" + name, bytes);
    }

    /// Returns whether the input took a new edge. Ends the process if it fails.
    bool read(const std::string& bytes, bool mend) {
        write_input(format_, scratch_.input(), bytes, mend);
        edges::reset();
        const auto begin = Clock::now();
        begin_time();
        limit_memory();
        try {
            format_.read(scratch_.input(), scratch_.input() + "/" + format_.file);
        } catch (const Error& e) {
            if (e.exit() == Exit::internal) report(e.what());
        } catch (const std::exception& e) {
            report(fmt::format("an exception that is no Error: {}", e.what()));
        }
        end_time();
        progress_->slowest = std::max(progress_->slowest, seconds_since(begin));
        return edges::add_to(progress_->seen);
    }

    [[noreturn]] void report(const std::string& what) const {
        fmt::print(stderr, "{}: {:.300}\n", name_, what);
        std::fflush(nullptr);
        _exit(exit_of_report);
    }

    std::string keep_failure(int status) const {
        const std::string bytes = slurp(scratch_.input() + "/" + format_.file);
        const std::string file = fmt::format("{}/{}-{:.12}", request_.failures, name_, sha256(bytes));
        fs::create_directories(request_.failures);
        spill(file, bytes);
        const char* what = "the report above";
        if (WIFSIGNALED(status)) what = WTERMSIG(status) == SIGALRM ? "takes too long" : strsignal(WTERMSIG(status));
        return fmt::format("{}: {}; the input is kept: scripts/fuzz.sh --replay {}", name_, what, file);
    }

    std::string name_;
    FuzzRequest request_;
    Scratch scratch_;
    Format format_;
    std::vector<std::string> pool_;
    std::set<size_t> failing_;  // of pool_
    Progress* progress_ = nullptr;
    Clock::time_point begin_ = Clock::now();
};

}  // namespace

FuzzOutcome fuzz(const NamedFormat& format, const FuzzRequest& request) {
    return Session(format, request).run();
}

void distil(const NamedFormat& format, const std::string& folder, size_t most) {
    Session(format, {}).distil(folder, most);
}

std::string replay(const NamedFormat& named, const std::string& file) {
    const Scratch scratch;
    const Format format = named.make(scratch.made());
    lay_out(format, scratch.input());
    write_input(format, scratch.input(), slurp(file), true);
    try {
        format.read(scratch.input(), scratch.input() + "/" + format.file);
    } catch (const Error& e) {
        if (e.exit() == Exit::internal) throw;
        return e.what();
    }
    return "read";
}

}  // namespace colonnade
