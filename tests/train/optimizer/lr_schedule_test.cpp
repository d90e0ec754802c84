#include "train/optimizer/lr_schedule.h"

#include <gtest/gtest.h>

#include <vector>

namespace colonnade {
namespace {

struct Golden {
    LrSchedule schedule;
    std::vector<double> rates;  // at the steps below
};
const std::vector<int64_t> steps = {0, 1, 3, 4, 5, 12, 15, 17, 19, 20};

// Values of transformers 5.17 and 5.24, with the arguments of each line:
//   python -c "import torch; from transformers import get_scheduler
//   o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
//   s = get_scheduler(NAME, o, 4, 20, scheduler_specific_kwargs=KWARGS)
//   for step in range(21): print(step, s.get_last_lr()[0]); o.step(); s.step()"
const std::vector<Golden> golden = {
    // "constant"
    {{LrScheduler::constant, 1, 4, 20}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    // "constant_with_warmup"
    {{LrScheduler::constant_with_warmup, 1, 4, 20}, {0, 0.25, 0.75, 1, 1, 1, 1, 1, 1, 1}},
    // "linear"
    {{LrScheduler::linear, 1, 4, 20}, {0, 0.25, 0.75, 1, 0.9375, 0.5, 0.3125, 0.1875, 0.0625, 0}},
    // "cosine"
    {{LrScheduler::cosine, 1, 4, 20},
     {0, 0.25, 0.75, 1, 0.9903926402016152, 0.5, 0.22221488349019902, 0.08426519384872733, 0.009607359798384785, 0}},
    // "cosine_with_min_lr", dict(min_lr_rate=0.1)
    {{LrScheduler::cosine_with_min_lr, 1, 4, 20, 0.1},
     {0, 0.25, 0.75, 1, 0.9913533761814537, 0.55, 0.2999933951411791, 0.1758386744638546, 0.10864662381854631, 0.1}},
    // "cosine_with_restarts", dict(num_cycles=3)
    {{.type = LrScheduler::cosine_with_restarts, .peak = 1, .warmup_steps = 4, .total_steps = 20, .cycles = 3},
     {0, 0.25, 0.75, 1, 0.9157348061512727, 0.5, 0.9903926402016152, 0.5975451610080642, 0.08426519384872733, 0}},
    // "polynomial", dict(power=2.0, lr_end=0.1)
    {{.type = LrScheduler::polynomial, .peak = 1, .warmup_steps = 4, .total_steps = 20, .min_lr_rate = 0.1, .power = 2},
     {0, 0.25, 0.75, 1, 0.891015625, 0.325, 0.187890625, 0.131640625, 0.103515625, 0.1}},
    // "inverse_sqrt"
    {{.type = LrScheduler::inverse_sqrt, .peak = 1, .warmup_steps = 4, .total_steps = 20, .timescale = 4},
     {0, 0.25, 0.75, 1, 0.8944271909999159, 0.5773502691896258, 0.5163977794943222, 0.48507125007266594,
      0.4588314677411235, 0.4472135954999579}},
    // "inverse_sqrt", dict(timescale=10)
    {{.type = LrScheduler::inverse_sqrt, .peak = 1, .warmup_steps = 4, .total_steps = 20, .timescale = 10},
     {0, 0.25, 0.75, 1, 0.9534625892455922, 0.7453559924999299, 0.6900655593423541, 0.6593804733957871,
      0.6324555320336759, 0.6201736729460422}},
    // "warmup_stable_decay", dict(num_decay_steps=6, min_lr_ratio=0.1)
    {{LrScheduler::wsd, 1, 4, 20, 0.1, 6},
     {0.1, 0.325, 0.775, 1, 1, 1, 0.9397114317029974, 0.55, 0.16028856829700258, 0.1}},
    // "warmup_stable_decay", dict(num_decay_steps=6, decay_type="linear")
    {{LrScheduler::wsd, 1, 4, 20, 0, 6, LrDecay::linear},
     {0, 0.25, 0.75, 1, 1, 1, 0.8333333333333334, 0.5, 0.16666666666666663, 0}},
    // "warmup_stable_decay", dict(num_decay_steps=6, decay_type="1-sqrt", min_lr_ratio=0.1)
    {{LrScheduler::wsd, 1, 4, 20, 0.1, 6, LrDecay::one_minus_sqrt},
     {0.1, 0.325, 0.775, 1, 1, 1, 0.6325765385825233, 0.36360389693210715, 0.17841616374225078, 0.1}},
};

TEST(LrSchedule, IsThatOfTransformers) {
    for (size_t g = 0; g < golden.size(); ++g) {
        for (size_t i = 0; i < steps.size(); ++i)
            EXPECT_NEAR(learning_rate(golden[g].schedule, steps[i]), golden[g].rates[i], 1e-15)
                << "schedule " << g << " step " << steps[i];
    }
}

TEST(LrSchedule, ScalesWithThePeak) {
    for (Golden g : golden) {
        const double share = learning_rate(g.schedule, 5);
        g.schedule.peak = 3e-4;
        EXPECT_DOUBLE_EQ(learning_rate(g.schedule, 5), 3e-4 * share);
    }
}

TEST(LrSchedule, NeedsNeitherWarmUpNorASecondStep) {
    for (const LrScheduler type : {LrScheduler::constant_with_warmup, LrScheduler::linear, LrScheduler::cosine,
                                   LrScheduler::cosine_with_min_lr, LrScheduler::wsd}) {
        EXPECT_EQ(learning_rate({.type = type, .peak = 2, .total_steps = 1}, 0), 2) << static_cast<int>(type);
    }
}

TEST(LrSchedule, WarmUpMayTakeTheWholeRun) {
    const LrSchedule schedule{.type = LrScheduler::cosine, .peak = 1, .warmup_steps = 4, .total_steps = 4};
    EXPECT_EQ(learning_rate(schedule, 3), 0.75);
}

}  // namespace
}  // namespace colonnade
