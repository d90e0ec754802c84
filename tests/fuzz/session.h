#pragma once
// A fuzzing session of one format. Inputs are read in a child process, under limits: an input ends well if its reader
// returns or throws an Error. It fails if the reader
//
//   ends by a signal or a report of a sanitizer
//   throws anything else, or an Error of kind Exit::internal
//   takes more than 10 seconds of processor time (180 under sanitizers), or waits for ten minutes
//   takes more than 256 MB beyond what the process has
//
// The same seed gives the same inputs, as many as --inputs or --seconds let it read. No clock decides what comes next.
//
// Coverage: an input that takes an edge of the control flow that none before it took is kept and mutated further.

#include <cstdint>
#include <string>
#include <vector>

#include "tests/fuzz/formats.h"

namespace colonnade {

enum class Guidance { coverage, blind };

struct FuzzRequest {
    uint64_t seed = 1;
    int64_t inputs = INT64_MAX;  ///< mutated ones
    double seconds = 1e9;
    Guidance guidance = Guidance::coverage;  ///< without counters (tests/fuzz/edges.h) blind
    std::string kept{};      ///< a folder for the kept inputs, which later sessions begin with; or empty
    std::string failures{};  ///< a folder for inputs that fail
};

struct FuzzOutcome {
    int64_t inputs = 0, kept = 0;
    size_t edges_of_seeds = 0, edges = 0;  ///< 0 without counters
    double seconds = 0, slowest = 0;       ///< slowest: seconds of one input
    std::vector<std::string> failures;     ///< one line each: what happened, and the file
};

/// Reads the seeds, those in tests/golden/corpus/<name>, and mutations of them.
FuzzOutcome fuzz(const NamedFormat& format, const FuzzRequest& request);

/// Deletes files of `folder`, inputs that sessions kept, until at most `most` are left: those that take the most edges
/// which neither the seeds, nor smaller ones of them take.
void distil(const NamedFormat& format, const std::string& folder, size_t most);

/// Reads a file as a session would, in this process, without limits. Returns what came of it: "read", or the error.
std::string replay(const NamedFormat& format, const std::string& file);

}  // namespace colonnade
