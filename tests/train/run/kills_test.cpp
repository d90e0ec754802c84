// SIGKILL at random moments of every stage of a run, on one and on three ranks: no start fails, and in the end the run
// has the bits of a run that nobody killed. COLONNADE_KILLS=1000 sets the number of kills; their seed is fixed.

#include <array>
#include <numeric>

#include "tests/support/rank_runs.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

enum class Stage { start, tokenising, training, background_save, foreground_save, evaluation, resume, end };
constexpr const char* stage_names[] = {"start",           "tokenising", "training", "background save",
                                       "foreground save", "evaluation", "resume",   "last save and export"};
constexpr int64_t stages = std::size(stage_names);

int64_t kills_wanted() {
    const char* number = std::getenv("COLONNADE_KILLS");
    return number ? std::max(1, std::atoi(number)) : 32;
}

constexpr int64_t steps = 120, save_steps = 16, eval_steps = 5;

class Kills : public RanksTest {
  protected:
    void SetUp() override {
        ranks_ = std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) == "OnThreeRanks" ? 3 : 1;
        ranks_ == 1 ? RunTest::SetUp() : RanksTest::SetUp();
        if (IsSkipped()) return;
        spill(path("train.jsonl"), chain_rows(2000));
        write_config(
            fmt::format("max_steps: {}\nsave_steps: {}\neval_steps: {}\nval_size: 16\nlearning_rate: 0.01\n"
                        "logging_steps: 1\nloss_spike: 'off'\nddp_timeout: 10\n",
                        steps, save_steps, eval_steps));
    }

    /// A start of the run in `output_dir` named `name`.
    std::unique_ptr<Program> begin(const std::string& name, bool async_save) const {
        const std::vector<std::string> settings = {"resume_from_checkpoint=auto",
                                                   fmt::format("async_save={}", async_save)};
        if (ranks_ > 1) return std::make_unique<Program>(mpirun(), train_on(ranks_, name, settings), allow_ranks);
        std::vector<std::string> arguments = {config(), output(name)};
        arguments.insert(arguments.end(), settings.begin(), settings.end());
        return std::make_unique<Program>("train", arguments);
    }

    /// The run that nobody kills, and how long it takes to its first step.
    void run_clean() {
        begin("clean", true)->wait();  // tokenises
        fs::remove_all(path("clean"));
        const auto start = Clock::now();
        const auto program = begin("clean", true);
        ASSERT_TRUE(program->read_until("step 1/"));
        start_ =
            static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count());
        ASSERT_EQ(program->wait().exit, 0);
        clean_ = result_of(path("clean"));
        ASSERT_FALSE(clean_.model.empty());
    }

    pid_t rank_zero(const Program& program) const {
        return ranks_ == 1 ? program.pid() : process_of_rank(program.pid(), 0);
    }
    static bool reads_checkpoint(pid_t process) {
        std::error_code error;
        for (fs::directory_iterator at(fmt::format("/proc/{}/fd", process), error), end; !error && at != end;
             at.increment(error)) {
            std::error_code closed;
            if (fs::read_symlink(at->path(), closed).string().find("/checkpoint-") != std::string::npos) return true;
        }
        return false;
    }
    int64_t last_step() const {
        const std::vector<int64_t> found = checkpoint_steps(path("run"));
        return found.empty() ? 0 : found.back();
    }
    static int64_t next_multiple(int64_t of, int64_t after) { return (after / of + 1) * of; }
    static std::string line_of(int64_t step) { return fmt::format("step {}/", step); }

    /// Waits until the run has reached a stage; returns the microseconds within which to kill it, or 0 if it has ended.
    uint64_t reach(Stage stage, Program& program) {
        const int64_t from = last_step();
        switch (stage) {
            case Stage::start:
                return start_;
            case Stage::tokenising:
                return program.read_until("tokenising train") ? 30'000 : 0;
            case Stage::training:
                return program.read_until(line_of(from + 1 + static_cast<int64_t>(draw(10)))) ? 2000 : 0;
            case Stage::background_save:
                return program.read_until("saving ") ? 6000 : 0;
            case Stage::foreground_save:
                return program.read_until(line_of(next_multiple(save_steps, from))) ? 6000 : 0;
            case Stage::evaluation:
                return program.read_until(line_of(next_multiple(eval_steps, from))) ? 3000 : 0;
            case Stage::resume: {
                const auto begin = Clock::now();
                while (Clock::now() - begin < std::chrono::microseconds(5 * start_))
                    if (reads_checkpoint(rank_zero(program))) return 2000;
                return 0;
            }
            case Stage::end:
                return program.read_until(line_of(steps)) ? 40'000 : 0;
        }
        return 0;
    }

    /// Kills the run in a stage: its process, or a random rank, or mpirun. Returns false if it ended before.
    bool kill_in(Stage stage) {
        if (stage == Stage::tokenising) fs::remove_all(path("prepared"));
        const auto program = begin("run", stage != Stage::foreground_save);
        const uint64_t within = reach(stage, *program);
        if (within > 0) usleep(static_cast<useconds_t>(draw(within)));
        std::vector<pid_t> processes = {program->pid()};
        for (int r = 0; r < ranks_ && ranks_ > 1; ++r) processes.push_back(process_of_rank(program->pid(), r));
        const pid_t victim = processes[draw(processes.size())];
        kill(victim > 0 ? victim : program->pid(), SIGKILL);
        const Program::Result result = program->wait();
        const auto ended = [](pid_t process) { return process == 0 || is_gone(process); };
        for (int i = 0; i < 1000 && !std::all_of(processes.begin(), processes.end(), ended); ++i) usleep(10'000);
        EXPECT_TRUE(std::all_of(processes.begin(), processes.end(), ended)) << "a rank is left behind";
        if (result.exit == 0) return false;
        // A rank that sees the end of another says so. What Open MPI returns depends on who ended first.
        const bool killed = result.exit == 128 + SIGKILL ||
                            (ranks_ > 1 && count_of(result.err, "error: ") == count_of(result.err, "All ranks stop"));
        EXPECT_TRUE(killed) << "a start failed with " << result.exit << ": " << result.err;
        torn_ += has_leftover(path("run")) || has_leftover(path("prepared"));
        return true;
    }
    static bool has_leftover(const std::string& folder) {
        return fs::exists(folder) && listing(folder).find(".tmp-") != std::string::npos;
    }

    /// One kill in every stage, then the rest of the run.
    void lap() {
        fs::remove_all(path("run"));
        std::vector<Stage> order;
        for (int64_t s = 0; s < stages; ++s) order.push_back(static_cast<Stage>(s));
        for (size_t i = order.size() - 1; i > 1; --i) std::swap(order[i - 1], order[draw(i)]);  // `end` stays last
        for (const Stage stage : order) {
            if (stage == Stage::resume && last_step() == 0) {
                const auto program = begin("run", true);
                ASSERT_TRUE(program->read_until("saved "));
                program->send(SIGKILL);
                program->wait();
            }
            kills_[static_cast<size_t>(stage)] += kill_in(stage);
        }
        const Program::Result result = begin("run", true)->wait();
        ASSERT_EQ(result.exit, 0) << "lost: " << result.err;
        const RunResult found = result_of(path("run"));
        ASSERT_TRUE(found.state == clean_.state && found.model == clean_.model) << "other bits";
        ASSERT_EQ(found.log, clean_.log);
        for (const auto& entry : fs::directory_iterator(path("run")))
            ASSERT_FALSE(entry.path().filename().string().starts_with("checkpoint-") &&
                         entry.path().string().find(".tmp-") != std::string::npos)
                << entry.path() << " is left over";
    }

    void run_laps(int64_t wanted) {
        run_clean();
        if (HasFatalFailure()) return;
        int64_t laps = 0, kills = 0;
        for (; kills < wanted && laps < wanted && !HasFailure(); ++laps) {
            lap();
            kills = std::accumulate(kills_.begin(), kills_.end(), int64_t{0});
        }
        std::string table =
            fmt::format("{} rank{}: {} kills in {} runs, {} of them left a file half written, {} lost;", ranks_,
                        ranks_ == 1 ? "" : "s", kills, laps, torn_, HasFailure() ? "SOMETHING" : "0");
        for (size_t s = 0; s < stages; ++s) {
            table += fmt::format("{} {} {}", s ? "," : "", stage_names[s], kills_[s]);
            EXPECT_GT(kills_[s], 0) << stage_names[s];
        }
        fmt::print("{}\n", table);
        EXPECT_GE(kills, wanted);
        if (laps > 20) {
            EXPECT_GT(torn_, 0);
        }
    }

    uint64_t draw(uint64_t below) { return random_.below(draws_++, below); }

    int ranks_ = 1;
    RunResult clean_;
    uint64_t start_ = 0;  ///< microseconds to the first step
    Philox random_{17, 0};
    uint64_t draws_ = 0;
    std::array<int64_t, stages> kills_{};
    int64_t torn_ = 0;
};

TEST_F(Kills, OnOneRank) {
    run_laps(kills_wanted() * 3 / 4);
}

TEST_F(Kills, OnThreeRanks) {
    run_laps((kills_wanted() + 3) / 4);
}

}  // namespace
}  // namespace colonnade
