#include "train/run/run_schedule.h"

namespace colonnade {

PackSchedule run_schedule(const Session& s, int ranks) {
    const Config& c = s.config;
    return PackSchedule(s.train.row_lengths(),
                        {.packing = train_packing(c),
                         .layout = {c.per_device_train_batch_size, c.gradient_accumulation_steps, ranks},
                         .epochs = c.num_train_epochs,
                         .max_steps = c.max_steps},
                        s.train.prefixes);
}

}  // namespace colonnade
