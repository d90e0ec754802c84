#include "train/selftest/selftest.h"

#include <fmt/format.h>

#include "train/selftest/attention_checks.h"
#include "train/selftest/session_subject.h"
#include "train/selftest/step_checks.h"

namespace colonnade {
namespace {

/// A check of every family's model.
Check of_families(std::string name, const std::string& compared, const std::string& stage, Gpu* gpu,
                  Finding (*check)(const Subject&)) {
    return {.name = std::move(name), .compared = compared, .run = [stage, gpu, check] {
                std::vector<Finding> findings;
                for (const Subject& subject : random_subjects(stage, gpu)) findings.push_back(check(subject));
                return worst_of(findings);
            }};
}

constexpr const char* layouts = "loss, metrics and gradients";

}  // namespace

std::vector<Check> built_in_checks(Gpu* gpu) {
    const Context ctx{.device = gpu ? Device::cuda : Device::cpu, .gpu = gpu};
    std::vector<Check> checks = attention_checks(ctx);
    for (const char* stage : {"sft", "dpo", "rm", "kto", "grpo"})
        checks.push_back({.name = fmt::format("gradients, {}", stage),
                          .compared = "with central differences of the loss, in double on the CPU",
                          .run = [stage] {
                              std::vector<Finding> findings;
                              for (const Subject& subject : exact_subjects(stage, ModelSize::tiny))
                                  findings.push_back(check_gradients(subject));
                              return worst_of(findings);
                          }});
    if (gpu)
        checks.push_back(
            {.name = "gradients, GPU", .compared = "in bf16 with those in double on the CPU", .run = [gpu] {
                 const std::vector<Subject> on_gpu = random_subjects("sft", gpu),
                                            exact = exact_subjects("sft", ModelSize::small);
                 std::vector<Finding> findings;
                 for (size_t i = 0; i < exact.size(); ++i)
                     findings.push_back(check_device_gradients(on_gpu[i], exact[i]));
                 return worst_of(findings);
             }});
    for (const char* stage : {"sft", "dpo", "rm", "kto", "grpo"})
        checks.push_back(of_families(fmt::format("packed, {}", stage),
                                     fmt::format("packed rows with separate samples: {}", layouts), stage, gpu,
                                     check_packed));
    checks.push_back(of_families("prefix trees", fmt::format("shared prefixes with repeated ones: {}", layouts),
                                 "trees", gpu, check_packed));
    checks.push_back(of_families("accumulation", fmt::format("1 micro-step of 4 rows with 4 of 1: {}", layouts), "sft",
                                 gpu, check_accumulation));
    checks.push_back(
        of_families("ranks", fmt::format("a step dealt to 1 rank and to 2: {}", layouts), "sft", gpu, check_ranks));
    checks.push_back(of_families("same bits", "weights and optimizer state of two runs: numbers that differ", "sft",
                                 gpu, check_determinism));
    checks.push_back(of_families("resume", "an update after a checkpoint, unbroken and resumed: numbers that differ",
                                 "sft", gpu, check_resume));
    checks.push_back(of_families("generation", "answers from the cache with whole forward passes: tokens and logits",
                                 "sft", gpu, check_generation));
    return checks;
}

std::vector<Check> run_checks_of(const Session& session, Gpu* gpu, int64_t tokens) {
    const auto subject = std::make_shared<Subject>(session_subject(session, gpu, tokens));
    const auto of_run = [&](std::string name, std::string compared, Finding (*check)(const Subject&)) {
        return Check{.name = std::move(name), .compared = std::move(compared), .run = [subject, check] {
                         return check(*subject);
                     }};
    };
    const auto several = [](Finding (*check)(const Subject&), const Subject& s) {
        if (s.samples.size() < 2) return Finding{.skipped = "one sample has all the tokens of --tokens; allow more"};
        return check(s);
    };
    std::vector<Check> checks = {
        of_run("packed", fmt::format("packed rows with separate samples: {}", layouts), check_packed)};
    checks.push_back({.name = "accumulation",
                      .compared = fmt::format("1 micro-step of several rows with one of each: {}", layouts),
                      .run = [subject, several] { return several(check_accumulation, *subject); }});
    checks.push_back({.name = "ranks",
                      .compared = fmt::format("a step dealt to 1 rank and to 2: {}", layouts),
                      .run = [subject, several] { return several(check_ranks, *subject); }});
    checks.push_back(
        of_run("same bits", "weights and optimizer state of two runs: numbers that differ", check_determinism));
    checks.push_back(
        of_run("resume", "an update after a checkpoint, unbroken and resumed: numbers that differ", check_resume));
    checks.push_back({.name = "generation",
                      .compared = "answers from the cache with whole forward passes: tokens and logits",
                      .run = [&session, subject, gpu] {
                          if (session.model.score_head) return Finding{.skipped = "a reward model generates nothing"};
                          return check_generation(generating(session, *subject, gpu));
                      }});
    return checks;
}

}  // namespace colonnade
