#include "train/run/labelled_answers.h"

#include "train/run/stage_objective.h"

namespace colonnade {
namespace {

struct Labels {
    int64_t desirable = 0, undesirable = 0;
};

Labels labels_of(const TokenStore& store) {
    Labels labels;
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        if (sample.sequences.size() != 1)
            fail(Exit::data, "{}: stage kto needs rows of one answer with a label, found {} answers", store.place(i),
                 sample.sequences.size());
        const Sequence& answer = sample.sequences[0];
        if (answer.learned.empty()) fail(Exit::data, "{}: no token of the answer is learned", store.place(i));
        if (answer.advantage != 1 && answer.advantage != -1)
            fail(Exit::data, "{}: stage kto needs a label for the answer: true (desirable) or false", store.place(i));
        ++(answer.advantage > 0 ? labels.desirable : labels.undesirable);
    }
    return labels;
}

/// TRL asks for weights that balance the labels: desirable_weight x desirable over undesirable_weight x undesirable from
/// 1 to 4/3 (kto_trainer.py; arXiv 2402.01306, section 4.2).
std::string balance(const Config& c, const Labels& labels) {
    const double desirable = c.desirable_weight * static_cast<double>(labels.desirable);
    const double undesirable = c.undesirable_weight * static_cast<double>(labels.undesirable);
    if (desirable == 0 || undesirable == 0) return "";
    const double ratio = desirable / undesirable;
    if (ratio >= 0.99 && ratio <= 1.34) return "";
    const double weight = c.desirable_weight / ratio;
    return fmt::format("; by weight their ratio is {:.2f}, 1 to 1.33 is usual: desirable_weight {:.2f} to {:.2f}",
                       ratio, weight, weight * 4 / 3);
}

}  // namespace

void settle_labelled_answers(Session& s) {
    const Config& c = s.config;
    if (c.stage != Stage::kto) return;
    const Labels labels = labels_of(s.train.store);
    labels_of(s.eval.store);
    s.notices.push_back(fmt::format("labels: {} desirable and {} undesirable answers{}", labels.desirable,
                                    labels.undesirable, balance(c, labels)));
    if (!make_objective(c)->needs_mismatched()) return;
    for (StoreResult* split : {&s.train, &s.eval}) {
        if (split->store.size() == 0) continue;
        split->mismatched =
            MismatchedAnswers(split->store, {.seed = static_cast<uint64_t>(c.data_seed), .max_length = c.max_length});
        if (!split->mismatched.empty()) continue;
        if (split == &s.train)
            fail(Exit::data,
                 "loss_type kto compares with answers to other prompts, but all {} training samples have the same "
                 "prompt; use loss_type: apo_zero_unpaired",
                 split->store.size());
        s.notices.push_back(fmt::format(
            "all {} evaluation samples have the same prompt: evaluation takes 0 for the kl of loss_type kto",
            split->store.size()));
    }
}

}  // namespace colonnade
