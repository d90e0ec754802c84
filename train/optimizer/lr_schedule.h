#pragma once
// The learning rate of an optimizer step, as a pure function: resuming needs only the step number. Steps count from 0:
// step s of `total_steps` uses learning_rate(schedule, s), the same as transformers' get_scheduler (which calls wsd
// "warmup_stable_decay"). With w = warmup_steps, T = total_steps, r = min_lr_rate, as a fraction of the peak:
//
//     s < w                  s / w                                   (all but constant; wsd rises from r instead of 0)
//     constant, c._with_w.   1
//     linear                 (T - s) / (T - w)
//     cosine                 (1 + cos(pi p)) / 2,  p = (s - w) / (T - w)
//     cosine_with_min_lr     (1 - r) cosine + r
//     cosine_with_restarts   (1 + cos(pi (c p mod 1))) / 2,  c = cycles; 0 at the end
//     polynomial             (1 - r) (1 - p)^power + r
//     inverse_sqrt           sqrt(t / (s - w + t)),  t = timescale; it does not end at 0
//     wsd                    1 until T - decay_steps, then (1 - r) f(p) + r, p from 0 to 1 over the last decay_steps,
//                            f = 1 - p, (1 + cos(pi p)) / 2 or 1 - sqrt(p)

#include <cstdint>

namespace colonnade {

enum class LrScheduler {
    constant,
    constant_with_warmup,
    linear,
    cosine,
    cosine_with_min_lr,
    cosine_with_restarts,
    polynomial,
    inverse_sqrt,
    wsd
};
enum class LrDecay { linear, cosine, one_minus_sqrt };

struct LrSchedule {
    LrScheduler type = LrScheduler::cosine;
    double peak = 0;  ///< learning rate at the end of the warm-up
    int64_t warmup_steps = 0;
    int64_t total_steps = 0;
    double min_lr_rate = 0;  ///< cosine_with_min_lr, polynomial, wsd: the last learning rate, as a fraction of the peak
    int64_t decay_steps = 0;               ///< wsd
    LrDecay decay_type = LrDecay::cosine;  ///< wsd
    int64_t cycles = 1;                    ///< cosine_with_restarts
    double power = 1;                      ///< polynomial
    int64_t timescale = 10'000;            ///< inverse_sqrt, in steps
};

double learning_rate(const LrSchedule& schedule, int64_t step);

}  // namespace colonnade
