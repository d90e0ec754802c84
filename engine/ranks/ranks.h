#pragma once
// Ranks: the processes of one run, started together by mpirun, and what they exchange outside of a training step: small
// values, errors, and turns. A run without mpirun has one rank, and every call here is then free. The large collectives
// of a step are in engine/ranks/communicator.h.
//
//     Ranks ranks({.program = "train"});
//     return ranks.guard([&] { ... });
//
// All ranks make every call that takes a `what` ("data", "stop signal"), in the same order. While they wait, the
// watchdog (engine/ranks/watchdog.h) makes sure that no rank waits forever; `what` names the call in its messages. Only
// the main thread may call.

#include <functional>
#include <optional>

#include "engine/ranks/watchdog.h"

namespace colonnade {

class Ranks {
  public:
    /// One rank, without a launcher.
    Ranks();
    struct Options {
        std::string program{};  ///< prefix of error messages
        double timeout = 600;   ///< seconds until a rank that hangs ends all, while they join as well
        std::string advice{};   ///< what the user can do then
    };
    /// Joins the ranks that mpirun started. Throws Exit::config if there are several and the build has no MPI. Ends the
    /// process with Exit::peer if they do not all join in time.
    explicit Ranks(Options options);
    ~Ranks();
    Ranks(const Ranks&) = delete;
    Ranks& operator=(const Ranks&) = delete;

    int rank() const { return rank_; }
    int size() const { return size_; }
    bool several() const { return size_ > 1; }
    /// Only rank 0 writes files and prints to the user.
    bool first() const { return rank_ == 0; }
    int local_rank() const { return local_rank_; }  ///< within this machine
    int local_size() const { return local_size_; }
    /// "rank 1 of 4 on node2"
    std::string name(int rank) const;

    /// Runs a program's body. An error that all ranks know of is printed by one of them, and its exit code is returned
    /// on all. An error of this rank alone also ends the others, and does not return.
    int guard(const std::function<int()>& body);
    /// The same for a part of the body. Ends all ranks before objects outside of that part are destroyed, because their
    /// destructors could wait for the other ranks.
    void end_all_on_error(const std::function<void()>& body) const;

    /// Runs `body` on every rank. If it throws on some, all throw the error of the lowest of them. Calls may nest.
    void together(const std::string& what, const std::function<void()>& body) const;
    /// Runs `body` first on rank 0, then on one rank of every other machine, then on the rest: a later rank finds the
    /// files of an earlier one. Errors as in together().
    void in_turn(const std::string& what, const std::function<void()>& body) const;

    void barrier(const std::string& what, Deadline deadline = Deadline::timeout) const;
    /// The texts of all ranks, in rank order.
    std::vector<std::string> gather(const std::string& what, const std::string& own,
                                    Deadline deadline = Deadline::timeout) const;
    /// The text of rank 0.
    std::string broadcast(const std::string& what, const std::string& own) const;
    int64_t max(const std::string& what, int64_t own) const;
    /// Element-wise maximum over ranks.
    std::vector<double> max(const std::string& what, const std::vector<double>& own) const;
    /// Element-wise sum in rank order: the same bits on every rank and in every run.
    std::vector<double> sum(const std::string& what, const std::vector<double>& own) const;

    /// Null with one rank.
    Watchdog* watchdog() const { return watchdog_.get(); }
    void set_step(int64_t step) const;

  private:
    void leave();
    void join();

    Options options_;
    int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
    std::vector<std::string> hosts_ = {""};
    std::unique_ptr<Watchdog> watchdog_;
    bool left_ = false;
};

/// The only rank of a run without a launcher.
const Ranks& one_rank();

}  // namespace colonnade
