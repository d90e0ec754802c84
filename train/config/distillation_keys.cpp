#include "train/config/distillation_keys.h"

namespace colonnade {

Section distillation_section() {
    using C = Config;
    return {"Distillation",
            {
                key("kd_alpha", &C::kd_alpha,
                    "Stage distill: weight of the divergence from the teacher in the loss. beta says which divergence "
                    "it is, "
                    "temperature at which temperature the teacher's log-probabilities were computed.",
                    at_least(0)),
                key("kd_ce_alpha", &C::kd_ce_alpha, "Weight of the cross-entropy of the text's own tokens beside it.",
                    at_least(0)),
            }};
}

void settle_distillation(Config& c, Rules& rules) {
    const Config d;
    const bool distill = c.stage == Stage::distill;
    const std::pair<const char*, bool> keys[] = {{"kd_alpha", c.kd_alpha == d.kd_alpha},
                                                 {"kd_ce_alpha", c.kd_ce_alpha == d.kd_ce_alpha}};
    for (const auto& [key, untouched] : keys)
        rules.expect(distill || untouched, {key, "stage"},
                     "{} is for stage distill, this is stage {}: set stage: distill", key, spell(c.stage));
    if (!distill) return;
    if (!rules.given("beta")) c.beta = 0;
    rules.expect(c.beta <= 1, {"beta", "stage"}, "beta {}: expected 0 (forward KL) to 1 (reverse KL) in stage distill",
                 c.beta);
    rules.expect(c.kd_alpha > 0 || c.kd_ce_alpha > 0, {"kd_alpha", "kd_ce_alpha"},
                 "kd_alpha and kd_ce_alpha are both 0: nothing would be learned");
    rules.expect(c.kd_ce_alpha == 0 || c.temperature == 1, {"kd_ce_alpha", "temperature"},
                 "kd_ce_alpha {} with temperature {}: the cross-entropy of a text is that at temperature 1",
                 c.kd_ce_alpha, c.temperature);
}

}  // namespace colonnade
