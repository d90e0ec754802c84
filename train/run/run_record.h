#pragma once
// RunRecord: what a run folder remembers of the runs in it.
//
//     run.json    for each start its date, program, command line, machine, and how it ended
//     train.log   what was printed, without the progress bar; each start begins with a line "=== date: command line"
//
//     {"format": "colonnade-run",
//      "starts": [{"started": "2026-11-29T15:22:14Z", "ended": "2026-11-29T16:01:55Z", "state": "stopped",
//                  "reason": "by SIGTERM", "step": 410, "total_steps": 1000, "resumed_step": 0,
//                  "program": "...", "command": ["train", "my.yaml"], "folder": "/home/me", "host": "node1", "pid": 77,
//                  "process_started": 5213077, "ranks": 1, "machine": {"device": "CPU", ...}, "changes": []}]}
//
// states: running; finished; stopped (by a signal, early, ...); failed. A process that was killed leaves "running":
// state_of_run() sees that it is gone. Times are UTC. "process_started" is field 22 of /proc/<pid>/stat, which tells a
// process from a later one with its pid.

#include <optional>
#include <string>
#include <vector>

#include "engine/io/json.h"
#include "train/log/append_file.h"
#include "train/run/rank_check.h"

namespace colonnade {

/// What is known of a start before the first step.
struct RunStart {
    std::string program{};  ///< version and commit
    Facts machine{};        ///< train/run/machine.h
    int64_t ranks = 1;
    int64_t resumed_step = 0, total_steps = 0;
    std::vector<std::string> changes{};  ///< of the config, since the checkpoint that it resumes
};

/// How a start ended.
struct RunEnd {
    const char* state;  ///< finished, stopped or failed
    std::string reason{};
    int64_t step = 0;
};

class RunRecord {
  public:
    /// Adds a start, in the state "running". `anew`: forgets the earlier ones. A run.json that is no such record is an
    /// error only if it cannot be replaced. Throws Exit::storage.
    RunRecord(std::string output_dir, bool anew);

    /// Completes the entry. Throws Exit::storage.
    void begin(const RunStart& start);
    /// Writes to train.log. The first failure is one line on stderr, and then the log ends there: it ends no run.
    void print(std::string_view text);
    /// Never throws: a failure is one line on stderr.
    void end(const RunEnd& end);

  private:
    void write();

    std::string output_dir_;
    Json record_;
    bool written_ = false;  ///< the last write(); after a failure there is no other
    std::optional<AppendFile> log_;
};

/// The state of the run in a folder, as one line: "finished on 2026-11-29 16:01 UTC after step 1000", "running as
/// process 77 on node1 since ...", "killed: process 77 on node1, which started on ..., is gone". Empty without a
/// readable run.json.
std::string state_of_run(const std::string& output_dir);

/// The arguments that this process was started with.
std::vector<std::string> command_line();

}  // namespace colonnade
