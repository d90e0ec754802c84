#include "train/run/given_logps.h"

#include <algorithm>
#include <cmath>

namespace colonnade {
namespace {

using Logps = std::vector<float> GivenLogps::*;

/// Learned tokens of both splits, and of how many a log-probability is given.
struct Count {
    int64_t tokens = 0, known = 0;
};
Count count(const Session& s, Logps of) {
    Count sum;
    for (const StoreResult* split : {&s.train, &s.eval}) {
        const std::vector<float>& logps = split->store.logps(of);
        sum.tokens += split->store.learned_count();
        sum.known += std::ranges::count_if(logps, [](float logp) { return !std::isnan(logp); });
    }
    return sum;
}

void drop(Session& s, Logps of) {
    for (StoreResult* split : {&s.train, &s.eval}) split->store.set_logps(of, {});
}

template <typename... Args>
void note(Session& s, fmt::format_string<Args...> format, Args&&... args) {
    s.notices.push_back(fmt::format(format, std::forward<Args>(args)...));
}

/// One answer in each row, and something to learn from them.
void check_answers(Session& s) {
    int64_t silent = 0;
    bool moves = s.config.beta > 0;
    for (const StoreResult* split : {&s.train, &s.eval})
        for (int64_t i = 0; i < split->store.size(); ++i) {
            const Sample sample = split->store.sample(i);
            if (sample.sequences.size() != 1)
                fail(Exit::data, "{}: stage grpo needs rows of one answer each, found {} sequences",
                     split->store.place(i), sample.sequences.size());
            const Sequence& answer = sample.sequences[0];
            silent += answer.learned.empty() ? 1 : 0;
            moves = moves || (split == &s.train && answer.advantage != 0 && !answer.learned.empty());
        }
    if (!moves)
        fail(
            Exit::data,
            "the advantage of all {} answers is 0: stage grpo learns from answers that are better or worse than others "
            "to their prompt; give several answers to each prompt, with rewards that differ, or advantages",
            s.train.store.size());
    if (silent > 0)
        note(s, "{} answers have no learned token; they count among the answers of a step, and teach nothing", silent);
}

void settle_old(Session& s) {
    const Count old = count(s, &GivenLogps::old);
    if (s.config.old_logps != OldLogps::row) {
        if (old.known > 0)
            note(s, "old log-probabilities: those of the rows are not used (old_logps: {})",
                 s.config.old_logps == OldLogps::start ? "start" : "none");
        return drop(s, &GivenLogps::old);
    }
    if (old.known == 0)
        note(s,
             "old log-probabilities: no row has any, so every ratio is 1, which is right for the first update alone; "
             "old_logps: start computes them");
    else if (old.known < old.tokens)
        note(s, "old log-probabilities: rows have them for {} of {} learned tokens; the others have a ratio of 1",
             old.known, old.tokens);
}

void settle_sampled(Session& s) {
    const Count sampled = count(s, &GivenLogps::sampled);
    if (sampled.known == 0) return;
    const bool corrects = s.config.vllm_importance_sampling_correction;
    const bool compared = s.config.old_logps == OldLogps::start ||
                          count(s, &GivenLogps::old).known > 0;  // else there is nothing to compare
    if (corrects && compared) return;
    note(s, "sampled log-probabilities: those of the rows are not used{}",
         corrects ? "; they are compared with old ones, of which there are none: old_logps: start computes them" : "");
    drop(s, &GivenLogps::sampled);
}

void settle_reference(Session& s) {
    const Config& c = s.config;
    const Count reference = count(s, &GivenLogps::reference);
    const bool all = reference.known == reference.tokens;
    if (reference.known == 0) return;
    if (c.beta > 0 && c.precompute_ref_log_probs && c.ref_model_name_or_path.empty() && all) return;
    note(s, "reference log-probabilities: those of the rows are not used{}",
         c.beta == 0 ? " (beta 0)"
         : all       ? ", the reference model computes its own"
               : fmt::format(", they have them for {} of {} learned tokens only", reference.known, reference.tokens));
    drop(s, &GivenLogps::reference);
}

}  // namespace

void settle_given_logps(Session& s) {
    if (s.config.stage != Stage::grpo) return;
    check_answers(s);
    settle_old(s);
    settle_sampled(s);
    settle_reference(s);
}

MissingLogps missing_logps(const Session& s) {
    const Config& c = s.config;
    if (c.stage != Stage::grpo) return {};
    const Count reference = count(s, &GivenLogps::reference);
    return {.old = c.old_logps == OldLogps::start,
            .reference = c.beta > 0 && c.precompute_ref_log_probs && reference.known < reference.tokens};
}

}  // namespace colonnade
