// When ranks do not agree, die, hang or are signalled: one line, all end in time, nobody is left, the next start resumes.

#include "tests/support/gpu_memory.h"
#include "tests/support/rank_runs.h"
#include "train/run/machine.h"
#include "train/run/rank_check.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

// --- Ranks that do not agree -----------------------------------------------------------------------------------------

TEST_F(RanksTest, MustAgreeOnTheConfig) {
    std::vector<std::string> arguments = train_on(1, "run", {"learning_rate=1e-3"});
    const std::vector<std::string> others = train_on(1, "run", {"learning_rate=2e-3"});
    arguments.push_back(":");
    arguments.insert(arguments.end(), others.begin() + 3, others.end());
    const Program::Result result = Program(mpirun(), arguments, allow_ranks).wait();
    EXPECT_EQ(result.exit, static_cast<int>(Exit::config)) << result.err;
    EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
    EXPECT_NE(result.err.find("ranks disagree on learning_rate: rank 0 of 2 on "), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(" has 0.001, rank 1 of 2 on "), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(path("run")));
}

/// mpirun's arguments for two ranks, each in a folder of its own.
std::vector<std::string> two_ranks_in(const std::vector<std::string>& folders, const std::vector<std::string>& programs,
                                      const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {"--oversubscribe", "--bind-to", "none"};
    for (size_t r = 0; r < 2; ++r) {
        if (r > 0) all.push_back(":");
        all.insert(all.end(), {"-np", "1", "-wdir", folders[r], programs[r]});
        all.insert(all.end(), arguments.begin(), arguments.end());
    }
    return all;
}

class RanksThatDiffer : public RanksTest {
  protected:
    void SetUp() override {
        RanksTest::SetUp();
        if (IsSkipped()) return;
        for (const char* folder : {"0", "1"}) fs::create_directories(path(folder));
    }
    void expect_refusal(const std::vector<std::string>& programs, const std::vector<std::string>& arguments, Exit exit,
                        const std::string& line) const {
        const Program::Result result =
            Program(mpirun(), two_ranks_in({path("0"), path("1")}, programs, arguments), allow_ranks).wait();
        EXPECT_EQ(result.exit, static_cast<int>(exit)) << result.err;
        EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
        EXPECT_NE(result.err.find(line), std::string::npos) << result.err << "\n  lacks: " << line;
    }
    const std::string train_ = program_path("train");
};

TEST_F(RanksThatDiffer, InTheProgram) {
    const std::string other = path("1/train");
    fs::copy_file(train_, other);
    std::ofstream(other, std::ios::app) << 'x';
    expect_refusal({train_, other}, {config(), output("run")}, Exit::config,
                   "ranks disagree on the program (SHA-256 of its file): rank 0 of 2 on ");
    EXPECT_FALSE(fs::exists(path("run")));
}

TEST_F(RanksThatDiffer, InTheData) {
    spill(path("0/train.jsonl"), chain_rows(160));
    spill(path("1/train.jsonl"), chain_rows(160, 2));
    expect_refusal({train_, train_},
                   {config(), output("run"), "datasets[0].path=train.jsonl", "prepared_path=prepared"}, Exit::config,
                   "ranks disagree on the data (key): rank 0 of 2 on ");
    EXPECT_FALSE(fs::exists(path("run")));
}

TEST_F(RanksThatDiffer, InTheModel) {
    train(config(), {output("0/model"), "max_steps=1", "save_strategy=no"});
    train(config(), {output("1/model"), "max_steps=1", "save_strategy=no", "seed=7"});
    spill(config(), fmt::format("model_name_or_path: model\ndatasets: [{{path: {}}}]\nmax_length: 48\n"
                                "packing_length: 64\nprepared_path: {}\nthreads: 1\nreport_to: [jsonl]\nmax_steps: 4\n",
                                path("train.jsonl"), path("prepared")));
    // Other weights: found by their checksum before the first step.
    expect_refusal({train_, train_}, {config(), output("run")}, Exit::numerics,
                   "after step 0 the weights of rank 1 of 2 on ");
    // Another shape.
    std::string text = slurp(path("1/model/config.json"));
    const size_t at = text.find("\"rms_norm_eps\": 1e-");
    ASSERT_NE(at, std::string::npos) << text;
    text[at + 16] = '4';
    spill(path("1/model/config.json"), text);
    expect_refusal({train_, train_}, {config(), output("run")}, Exit::config,
                   "ranks disagree on the model: rank 0 of 2");
}

TEST(DISABLED_EveryRank, OneHasOtherWeights) {
    Ranks ranks({.program = "rank_failures_test"});
    std::exit(run_program("rank_failures_test", [&] {
        return ranks.guard([&] {
            require_same_weights(ranks, 7, 100, -1);
            require_same_weights(ranks, ranks.rank() == 1 ? 8 : 7, 200, 100);
            return 0;
        });
    }));
}
TEST_F(RanksTest, NoticeThatWeightsDiffer) {
    const Program::Result result = run_on_ranks(3, "DISABLED_EveryRank.OneHasOtherWeights");
    EXPECT_EQ(result.exit, static_cast<int>(Exit::numerics)) << result.err;
    EXPECT_EQ(count_of(result.err, "error: after step 200 the weights of rank 1 of 3 on "), 1) << result.err;
    EXPECT_NE(result.err.find("after step 100 they agreed"), std::string::npos) << result.err;
}

/// Two ranks of this machine see the same GPU.
TEST(DISABLED_EveryRank, ThreeShareTwoGpus) {
    Ranks ranks({.program = "rank_failures_test"});
    std::exit(run_program("rank_failures_test", [&] {
        return ranks.guard([&] {
            const std::vector<CudaDevice> gpus = {{"GPU", 90, 1, "first"}, {"GPU", 90, 1, "second"}};
            ranks.together("start", [&] { require_gpu_each(gpus, ranks.local_rank() % 2, ranks); });
            return 0;
        });
    }));
}
TEST_F(RanksTest, MayNotBeMoreThanGpus) {
    const Program::Result result = run_on_ranks(3, "DISABLED_EveryRank.ThreeShareTwoGpus");
    EXPECT_EQ(result.exit, static_cast<int>(Exit::config)) << result.err;
    EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
    for (const char* part : {"error: rank 0 of 3 on ", " and rank 2 of 3 on ",
                             " would share a GPU: start no more ranks on a machine than it has GPUs (2 here), or set "
                             "device: cpu\n"})
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err << "\n  lacks: " << part;
}

// --- Ranks that die or hang ------------------------------------------------------------------------------------------

constexpr auto end_of_mpirun = std::chrono::seconds(3);  // it waits up to two seconds itself

/// Runs that continue until something happens to them. Afterwards all memory of the GPUs is free.
class RanksInTrouble : public RanksTest {
  protected:
    void SetUp() override {
        RanksTest::SetUp();
        if (IsSkipped()) return;
        write_config(
            fmt::format("logging_steps: 1\nlearning_rate: 1e-3\nlr_scheduler_type: constant\n"
                        "loss_spike: 'off'\nmax_steps: {}\nsave_steps: 20\nddp_timeout: {}\n",
                        endless, timeout()));
        if (on_gpus()) free_memory_ = free_gpu_memory();
    }
    void TearDown() override {
        if (!free_memory_.empty()) expect_free_gpu_memory(free_memory_);
        RanksTest::TearDown();
    }
    static constexpr int64_t endless = 100'000;
    /// Seconds. The start of NCCL may not take longer.
    int timeout() const { return on_gpus() ? 10 : 4; }

    std::vector<pid_t> processes(const Program& launcher) const {
        std::vector<pid_t> all;
        for (int r = 0; r < ranks(); ++r) all.push_back(process_of_rank(launcher.pid(), r));
        return all;
    }
    /// Waits for the end of a run, which began to end at `start`.
    Program::Result wait_for_all(Program& program, const std::vector<pid_t>& ranks,
                                 std::chrono::steady_clock::time_point start) const {
        const Program::Result result = program.wait();
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(timeout() + 5) + end_of_mpirun)
            << result.err;
        const auto none_left = [&] { return std::all_of(ranks.begin(), ranks.end(), is_gone); };
        for (int wait = 0; wait < 50 && !none_left(); ++wait) usleep(100'000);
        EXPECT_TRUE(none_left()) << "a rank is left behind";
        return result;
    }
    /// Sends signals to one of the ranks (or, for rank -1, to mpirun) in the middle of the run.
    Program::Result disturb(const std::string& name, int rank, const std::vector<int>& signals) const {
        Program program(mpirun(), train_on(ranks(), name, settings_), allow_ranks);
        EXPECT_TRUE(program.read_until("saved " + path(name)));
        const std::vector<pid_t> victims = processes(program);
        EXPECT_EQ(std::count(victims.begin(), victims.end(), 0), 0);
        const auto start = std::chrono::steady_clock::now();
        for (const int signal : signals) {
            kill(rank < 0 ? program.pid() : victims[static_cast<size_t>(rank)], signal);
            if (signals.size() > 1) usleep(50'000);
        }
        const Program::Result result = wait_for_all(program, victims, start);
        EXPECT_LT(last_step(path(name)), endless) << "nothing happened before the end";
        return result;
    }
    /// The next start continues from the last checkpoint and gives the bits of a run that nobody disturbed.
    void expect_to_resume(const std::string& name) const {
        const std::string steps = fmt::format("max_steps={}", last_step(path(name)) + 40);
        std::vector<std::string> settings = settings_;
        settings.push_back(steps);
        train_ranks(ranks(), name + " unbroken", settings);
        settings.push_back("resume_from_checkpoint=auto");
        const Program::Result result = train_ranks(ranks(), name, settings);
        EXPECT_NE(result.out.find("resumed from " + path(name)), std::string::npos) << result.out;
        expect_same(name, name + " unbroken");
        EXPECT_EQ(listing(path(name)).find(".tmp-"), std::string::npos) << listing(path(name));
    }
    static void expect_line(const Program::Result& result, const std::vector<std::string>& parts) {
        EXPECT_NE(result.exit, 0);
        EXPECT_EQ(count_of(result.err, "train: error: "), 1) << result.err;
        for (const std::string& part : parts)
            EXPECT_NE(result.err.find(part), std::string::npos) << result.err << "\n  lacks: " << part;
        EXPECT_NE(result.err.find(" All ranks stop; start again with resume_from_checkpoint: auto"), std::string::npos)
            << result.err;
    }
    /// "rank 1 of 3 on "
    std::string who(int rank) const { return fmt::format("rank {} of {} on ", rank, ranks()); }
    std::vector<std::string> settings_ = {"zero_stage=1"};
    std::vector<size_t> free_memory_;  ///< of the GPUs, in the beginning
};

using RanksInTroubleOnDevice = OnDevice<RanksInTrouble>;
INSTANTIATE_TEST_SUITE_P(Devices, RanksInTroubleOnDevice, every_device(), name_of_device);

TEST_P(RanksInTroubleOnDevice, EndWhenOneIsKilled) {
    // mpirun returns the exit code of the rank that ended first: 5, or 128 + 9 for the killed rank.
    expect_line(disturb("killed", 1, {SIGKILL}), {who(1), " died; last seen "});
    expect_to_resume("killed");
    expect_line(disturb("first killed", 0, {SIGKILL}), {who(0), " died; last seen "});
}

TEST_P(RanksInTroubleOnDevice, EndWhenOneIsStopped) {
    for (const int rank : {last_rank(), 0}) {
        const std::string name = fmt::format("stopped {}", rank);
        const Program::Result stopped = disturb(name, rank, {SIGSTOP});
        expect_line(stopped, {who(rank), fmt::format(" has sent nothing for {} s (stopped by a signal, ", timeout()),
                              "; last seen "});
        EXPECT_EQ(stopped.exit, static_cast<int>(Exit::peer)) << stopped.err;
        expect_to_resume(name);
    }
}

TEST_P(RanksInTroubleOnDevice, StopTogetherWhenOneIsSignalled) {
    for (const auto& [name, rank, signal] :
         {std::tuple("term", 1, SIGTERM), std::tuple("usr1", last_rank(), SIGUSR1)}) {
        const Program::Result result = disturb(name, rank, {signal});
        EXPECT_EQ(result.exit, 0) << result.err;
        EXPECT_EQ(
            count_of(result.out, fmt::format("stopped by {} after step ", signal == SIGTERM ? "SIGTERM" : "SIGUSR1")),
            1)
            << result.out;
        EXPECT_EQ(count_of(result.err, "error: "), 0) << result.err;
        if (signal == SIGTERM) expect_to_resume(name);
    }
}

/// Ctrl-C once and twice, `kill`, and `kill -9` of mpirun: Open MPI ends the ranks soon, whatever they do.
TEST_F(RanksInTrouble, NobodyOutlivesMpirun) {
    for (const std::vector<int>& signals :
         {std::vector<int>{SIGKILL}, {SIGTERM}, {SIGINT}, {SIGINT, SIGINT}, {SIGTERM, SIGTERM}}) {
        const std::string name = fmt::format("mpirun {}", fmt::join(signals, " "));
        const Program::Result result = disturb(name, -1, signals);
        if (signals[0] == SIGKILL) {
            EXPECT_EQ(result.exit, 128 + SIGKILL) << result.err;
        }
        EXPECT_EQ(count_of(result.err, "train: error: "), 0) << result.err;
        expect_to_resume(name);
    }
}

/// Suspending the whole job (Ctrl-Z, a batch system) for longer than the timeout is no hang.
TEST_P(RanksInTroubleOnDevice, APauseOfAllEndsNothing) {
    settings_.push_back("max_steps=1500");
    Program program(mpirun(), train_on(ranks(), "paused", settings_), allow_ranks);
    ASSERT_TRUE(program.read_until("step 1/"));
    const std::vector<pid_t> all = processes(program);
    for (const pid_t rank : all) kill(rank, SIGSTOP);
    sleep(static_cast<unsigned>(timeout() + 2));
    const size_t done = read_log(path("paused")).size();
    EXPECT_LT(done, 1500u);
    for (const pid_t rank : all) kill(rank, SIGCONT);
    const Program::Result result = program.wait();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_EQ(count_of(result.err, "error: "), 0) << result.err;
    EXPECT_EQ(last_step(path("paused")), 1500);
}

/// Stops or kills a rank at a stage of the start.
class RanksAtTheStart : public RanksInTrouble {
  protected:
    enum class Stage { launched, joining, tokenising, loading };

    void SetUp() override {
        RanksInTrouble::SetUp();
        if (!IsSkipped()) spill(path("train.jsonl"), chain_rows(20'000));  // about a second
    }
    static size_t threads_of(pid_t process) {
        std::error_code error;
        size_t threads = 0;
        for (fs::directory_iterator at(fmt::format("/proc/{}/task", process), error), end; !error && at != end;
             at.increment(error))
            ++threads;
        return threads;
    }
    struct Moment {
        Stage stage;
        int rank;
    };
    std::vector<Moment> every_moment() const {
        std::vector<Moment> all;
        for (const Stage stage : {Stage::launched, Stage::joining, Stage::tokenising, Stage::loading})
            for (const int rank : {0, last_rank()}) all.push_back({stage, rank});
        return all;
    }
    Program::Result disturb_at(const Moment& moment, int signal) const {
        const auto& [stage, rank] = moment;
        if (stage == Stage::tokenising) fs::remove_all(path("prepared"));
        fs::remove_all(path("run"));
        Program program(mpirun(), train_on(ranks(), "run", settings_), allow_ranks);
        std::vector<pid_t> all;
        const auto wait_until = [](const std::function<bool()>& condition) {
            for (int i = 0; i < 20'000 && !condition(); ++i) usleep(1000);
        };
        wait_until([&] { return all = processes(program), std::count(all.begin(), all.end(), 0) == 0; });
        const pid_t victim = all[static_cast<size_t>(rank)];
        if (stage == Stage::joining) wait_until([&] { return threads_of(victim) > 1; });
        if (stage == Stage::tokenising) {
            EXPECT_TRUE(program.read_until("tokenising train"));
        }
        if (stage == Stage::loading) wait_until([&] { return fs::exists(path("run/.lock")); });
        const auto start = std::chrono::steady_clock::now();
        EXPECT_EQ(kill(victim, signal), 0);
        return wait_for_all(program, all, start);
    }
};

using RanksAtTheStartOnDevice = OnDevice<RanksAtTheStart>;
INSTANTIATE_TEST_SUITE_P(Devices, RanksAtTheStartOnDevice, every_device(), name_of_device);

TEST_P(RanksAtTheStartOnDevice, OneIsStopped) {
    // On GPUs, which take longer, before CUDA and while rank 0 starts NCCL or waits for it.
    const std::vector<Moment> of_gpus = {{Stage::launched, 1}, {Stage::loading, 0}, {Stage::loading, 1}};
    for (const Moment& moment : on_gpus() ? of_gpus : every_moment()) {
        SCOPED_TRACE(fmt::format("stage {}, rank {}", static_cast<int>(moment.stage), moment.rank));
        const Program::Result result = disturb_at(moment, SIGSTOP);
        EXPECT_EQ(result.exit, static_cast<int>(Exit::peer)) << result.err;
        const std::string line = fmt::format("train: error: rank {} of {} ", moment.rank, ranks());
        if (moment.stage == Stage::launched)
            expect_line(result, {line, ") is stopped, by a signal or a debugger, and not all ranks have joined"});
        else if (moment.stage == Stage::joining)
            expect_line(result, {line, "stopped"});  // it may have joined by then
        else
            expect_line(result, {line, fmt::format(" has sent nothing for {} s", timeout()), "; last seen "});
        if (moment.stage == Stage::tokenising) {
            EXPECT_NE(result.err.find("; last seen before step 1"), std::string::npos) << result.err;
        }
    }
}

TEST_P(RanksAtTheStartOnDevice, OneIsKilled) {
    for (const Moment& moment : every_moment()) {
        SCOPED_TRACE(fmt::format("stage {}, rank {}", static_cast<int>(moment.stage), moment.rank));
        const Program::Result result = disturb_at(moment, SIGKILL);
        EXPECT_NE(result.exit, 0);
        EXPECT_LE(count_of(result.err, "train: error: "), 1) << result.err;  // mpirun may be faster
    }
    train_ranks(ranks(), "run", {"max_steps=4", "resume_from_checkpoint=auto"});
}

TEST_F(RanksInTrouble, AFullDiskEndsAll) {
    Program program(mpirun(), train_on(3, "run", settings_), allow_ranks);
    ASSERT_TRUE(program.read_until("step 2/"));
    // From now on rank 0 cannot write checkpoints.
    const rlimit limit{20'000, 20'000};
    EXPECT_EQ(prlimit(process_of_rank(program.pid(), 0), RLIMIT_FSIZE, &limit, nullptr), 0);
    const Program::Result result = program.wait();
    EXPECT_EQ(result.exit, static_cast<int>(Exit::storage)) << result.err;
    EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
    EXPECT_NE(result.err.find("train: error: rank 0 of 3 on "), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(path("run/checkpoint-")), std::string::npos) << result.err;
    for (const int64_t step : checkpoint_steps(path("run")))
        EXPECT_TRUE(std::filesystem::exists(checkpoint_folder(path("run"), step) + "/manifest.json")) << step;
}

}  // namespace
}  // namespace colonnade
