#include "train/selftest/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "engine/io/progress.h"

namespace colonnade {
namespace {

const char* name_of(Verdict verdict) {
    switch (verdict) {
        case Verdict::ok:
            return "ok";
        case Verdict::failed:
            return "FAILED";
        case Verdict::skipped:
            return "skipped";
    }
    return "";
}

/// "0" for results that must be equal to the bit.
std::string number(double value) {
    return value == 0 ? "0" : fmt::format("{:.1e}", value);
}

CheckResult run_check(const Check& check) {
    CheckResult result{.name = check.name, .compared = check.compared};
    try {
        result.finding = check.run();
    } catch (const std::exception& error) {
        result.error = error.what();
    }
    if (!result.finding.skipped.empty())
        result.verdict = Verdict::skipped;
    else if (!result.error.empty() || !result.finding.passes())
        result.verdict = Verdict::failed;
    return result;
}

}  // namespace

Finding worst_of(const std::vector<Finding>& findings) {
    const auto beyond = [](const Finding& f) {
        const double share = f.bound > 0 ? f.found / f.bound : f.found;
        return std::isnan(share) ? std::numeric_limits<double>::infinity() : share;
    };
    return *std::ranges::max_element(findings, {}, beyond);
}

std::vector<CheckResult> run_checks(const std::vector<Check>& checks) {
    std::vector<CheckResult> results;
    Progress progress({.label = "selftest", .total = static_cast<double>(checks.size()), .unit = "checks"});
    for (const Check& check : checks) {
        progress.fields({.texts = {check.name}});
        progress.update(static_cast<double>(results.size()));
        results.push_back(run_check(check));
    }
    progress.fields({});
    progress.update(static_cast<double>(checks.size()));
    progress.finish();
    return results;
}

std::string table_of(const std::vector<CheckResult>& results) {
    size_t width = 5, compared = 8;
    for (const CheckResult& r : results)
        width = std::max(width, r.name.size()), compared = std::max(compared, r.compared.size());
    std::string text =
        fmt::format("{:<{}}  {:>9} {:>8}  {:<7}  {}\n", "check", width, "found", "bound", "verdict", "compared");
    for (const CheckResult& r : results) {
        const bool measured = r.error.empty() && r.finding.skipped.empty();
        text += fmt::format("{:<{}}  {:>9} {:>8}  {:<7}  {}\n", r.name, width, measured ? number(r.finding.found) : "-",
                            measured ? number(r.finding.bound) : "-", name_of(r.verdict), r.compared);
        if (!r.error.empty()) text += fmt::format("{:<{}}  {}\n", "", width, r.error);
        if (!r.finding.skipped.empty()) text += fmt::format("{:<{}}  not compared: {}\n", "", width, r.finding.skipped);
        if (r.verdict == Verdict::failed && measured && !r.finding.where.empty())
            text += fmt::format("{:<{}}  largest in {}\n", "", width, r.finding.where);
    }
    return text;
}

bool all_pass(const std::vector<CheckResult>& results) {
    return std::ranges::none_of(results, [](const CheckResult& r) { return r.verdict == Verdict::failed; });
}

}  // namespace colonnade
