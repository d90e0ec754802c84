#include "train/run/run_schedule.h"

namespace colonnade {

PackSchedule run_schedule(const Session& s, int ranks) {
    const Config& c = s.config;
    return PackSchedule(s.train.row_lengths(),
                        {.packing = train_packing(c),
                         .layout = {c.per_device_train_batch_size, c.gradient_accumulation_steps, ranks},
                         .epochs = c.num_train_epochs,
                         .max_steps = c.max_steps},
                        s.train.prefixes, visible_pairs(c, s.train.store));
}

std::vector<int64_t> visible_pairs(const Config& config, const TokenStore& store) {
    return config.document_mask ? store.visible_pairs() : std::vector<int64_t>(static_cast<size_t>(store.size()));
}

std::string waiting_text(PackSchedule& schedule) {
    const StepLayout& layout = schedule.settings().layout;
    const double more = slowest_over_mean(schedule.plan(0), layout, schedule.visible_pairs()) - 1;
    return fmt::format("the slowest of {} has {:.1f} % more work than an average one, by tokens and visible pairs",
                       layout.ranks, 100 * more);
}

}  // namespace colonnade
