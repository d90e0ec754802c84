#pragma once
// Check: one row of the table that `colonnade selftest` prints.

#include <functional>
#include <string>
#include <vector>

namespace colonnade {

/// What a check found. It passes if `found` is not above `bound`; NaN is.
struct Finding {
    double found = 0, bound = 0;
    std::string where{};    ///< what has the largest difference; empty: not said
    std::string skipped{};  ///< why nothing was compared; empty: it was

    bool passes() const { return skipped.empty() && found <= bound; }
};
/// The one that is farthest beyond its bound, or nearest to it.
Finding worst_of(const std::vector<Finding>& findings);

struct Check {
    std::string name;      ///< "packed sft"
    std::string compared;  ///< "packed rows with separate samples: loss, metrics, gradients; 4 families"
    std::function<Finding()> run;
};

enum class Verdict { ok, failed, skipped };

struct CheckResult {
    std::string name, compared;
    Finding finding{};
    std::string error{};  ///< an error that ended the check
    Verdict verdict = Verdict::ok;
};

/// Runs the checks one by one, with progress on stderr. An error in a check is a result of it: what was checked before
/// stays known.
std::vector<CheckResult> run_checks(const std::vector<Check>& checks);

/// The table: a line for each result, and one for what is to be said about it.
std::string table_of(const std::vector<CheckResult>& results);
/// No result says FAILED.
bool all_pass(const std::vector<CheckResult>& results);

}  // namespace colonnade
