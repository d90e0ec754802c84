#include "train/run/shared_prefixes.h"

#include "data/packing/packer.h"

namespace colonnade {
namespace {

constexpr double least_saved = 0.01;  // of the tokens

/// Why rows cannot share, or not without changing numbers; empty if nothing is in the way.
struct Obstacle {
    std::string text{};
    bool only_differs = false;  ///< the run can share, with other random numbers
};

Obstacle obstacle_of(const Session& s) {
    const Config& c = s.config;
    if (!c.document_mask) return {"document_mask: false makes one long text of a row"};
    if (c.neftune_noise_alpha > 0) return {"neftune_noise_alpha draws noise for every sample of its own"};
    if (c.lora_dropout > 0 && c.finetuning_type == Finetuning::lora)
        return {"lora_dropout would drop the same elements for all samples that share a token", true};
    return {};
}

}  // namespace

void share_prefixes(Session& s) {
    const Config& c = s.config;
    const bool wanted = c.share_prefixes == Tristate::on;
    if (c.share_prefixes == Tristate::off) return;
    if (!wanted && (c.packing_strategy != PackStrategy::bfd || !c.document_mask)) return;
    const Obstacle obstacle = obstacle_of(s);
    if (wanted && !obstacle.text.empty() && !obstacle.only_differs)
        fail(Exit::config, "share_prefixes: true, but {}", obstacle.text);
    for (StoreResult* split : {&s.train, &s.eval}) {
        const bool training = split == &s.train;
        if (split->store.size() == 0 || (!training && !c.eval_packing)) continue;
        PrefixOrder prefixes = split->store.prefix_order();
        split->mismatched.limit(prefixes);
        const PackSettings packing = training ? train_packing(c) : eval_packing(c);
        const double saved = Packer(split->row_lengths(), packing, prefixes).plan(0).saved();
        if (!wanted && saved < least_saved) continue;
        if (!wanted && !obstacle.text.empty()) {
            s.notices.push_back(
                fmt::format("rows could share {:.0f} % of the {} tokens (share_prefixes), but {}{}", 100 * saved,
                            training ? "training" : "evaluation", obstacle.text,
                            obstacle.only_differs ? "; share_prefixes: true shares them nevertheless" : ""));
            continue;
        }
        split->prefixes = std::move(prefixes);
    }
    if (wanted && obstacle.only_differs) s.notices.push_back(fmt::format("share_prefixes: {}", obstacle.text));
}

}  // namespace colonnade
