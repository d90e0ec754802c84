#pragma once
// Ranks: the processes of one run, started together by mpirun, and what they tell each other outside of a training step:
// small values, errors, who goes first. A run without mpirun has one rank; everything here is then free. The large sums of
// a step are the business of engine/ranks/communicator.h.
//
//     Ranks ranks("train");
//     return ranks.guard([&] { ... });
//
// Every call below that names itself ("data", "stop signal") is made by all ranks in the same order. While they wait the
// watchdog (engine/ranks/watchdog.h) sees to it that nobody waits for ever.

#include <functional>
#include <optional>

#include "engine/ranks/watchdog.h"

namespace colonnade {

class Ranks {
  public:
    /// One rank, without a launcher.
    Ranks();
    /// The ranks that mpirun started, this process among them. Throws Exit::config where the build has no MPI for them.
    explicit Ranks(const std::string& program);
    ~Ranks();
    Ranks(const Ranks&) = delete;
    Ranks& operator=(const Ranks&) = delete;

    int rank() const { return rank_; }
    int size() const { return size_; }
    bool several() const { return size_ > 1; }
    /// Rank 0 alone writes files and speaks to the user.
    bool first() const { return rank_ == 0; }
    int local_rank() const { return local_rank_; }  ///< counted on this machine
    int local_size() const { return local_size_; }
    /// "rank 1 of 4 on node2"
    std::string name(int rank) const;

    /// The frame around a program's body. An error that all ranks know of is printed by one of them and ends each with its
    /// exit code, which is returned. An error of this rank alone ends the others, too, and does not return.
    int guard(const std::function<int()>& body);
    /// The same around what must not be torn down before the others are told: destructors could wait for them.
    void end_all_on_error(const std::function<void()>& body) const;

    /// Runs `body` everywhere; where it throws on some ranks, all throw: the error of the lowest. Calls nest.
    void together(const std::string& what, const std::function<void()>& body) const;
    /// First on rank 0, then on one rank of every other machine, then on the rest: who comes later finds the files of who
    /// came earlier. Errors as in together().
    void in_turn(const std::string& what, const std::function<void()>& body) const;

    void barrier(const std::string& what, bool patient = false) const;
    /// Everybody's text, in rank order.
    std::vector<std::string> gather(const std::string& what, const std::string& own, bool patient = false) const;
    /// Rank 0's.
    std::string broadcast(const std::string& what, const std::string& own) const;
    int64_t max(const std::string& what, int64_t own) const;
    /// Of each number the largest.
    std::vector<double> max(const std::string& what, const std::vector<double>& own) const;
    /// Added up in rank order: the same bits on every rank, in every run.
    std::vector<double> sum(const std::string& what, const std::vector<double>& own) const;

    /// Null where there is one rank.
    Watchdog* watchdog() const { return watchdog_.get(); }
    void set_timeout(double seconds) const;
    void set_step(int64_t step) const;

  private:
    void leave();

    std::string program_;
    int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
    std::vector<std::string> hosts_ = {""};
    std::unique_ptr<Watchdog> watchdog_;
    bool left_ = false;
};

/// What a run without a launcher has.
const Ranks& one_rank();

}  // namespace colonnade
