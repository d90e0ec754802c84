#include "train/objectives/policy_objective.h"

#include <algorithm>
#include <cmath>

#include "engine/device/device_memory.h"
#include "layers/head_loss.h"
#include "train/objectives/answer_logps.h"
#include "train/objectives/language_model_objective.h"

namespace colonnade {
namespace {

/// PolicySums and PolicyExtremes have the layout of LossSums.
static_assert(PolicySums::count <= LossSums::sums && PolicySums::loss == 0 && PolicySums::divisor == 1 &&
              PolicyExtremes::count <= LossSums::maxima);

/// Share of ratios outside [0.8, 1.25] before the first update that rounding and another kernel's numbers do not explain.
/// The ratio of a whole answer adds up the rounding of its tokens.
double most_outside(RatioLevel level) {
    return level == RatioLevel::sequence_sum ? 0.5 : 0.05;
}

class Figures {
  public:
    Figures(const LossSums& sums, RatioLevel level) : numbers_(sums.numbers()), level_(level) {}

    double sum(PolicySums::Name name) const { return numbers_[static_cast<size_t>(name)]; }
    double extreme(PolicyExtremes::Name name) const {
        return numbers_[static_cast<size_t>(LossSums::sums) + static_cast<size_t>(name)];
    }
    double of_terms(PolicySums::Name name) const { return quotient(sum(name), sum(PolicySums::terms)); }
    double of_sequences(PolicySums::Name name) const { return quotient(sum(name), sum(PolicySums::sequences)); }
    /// Of figures about ratios.
    double of_ratios(PolicySums::Name name) const {
        return level_ == RatioLevel::token ? of_terms(name) : of_sequences(name);
    }
    double reward() const { return quotient(sum(PolicySums::reward), sum(PolicySums::rewards)); }
    /// With n - 1, as TRL has it; 0 for one reward.
    double reward_std() const {
        const double n = sum(PolicySums::rewards), mean = reward();
        return n > 1 ? std::sqrt(std::max(0.0, (sum(PolicySums::reward_squared) - n * mean * mean) / (n - 1))) : 0;
    }

  private:
    static double quotient(double sum, double count) { return count > 0 ? sum / count : 0; }

    LossSums::Numbers numbers_;
    RatioLevel level_;
};

void add_clip_ratios(std::vector<Metric>& metrics, const Figures& f, PolicyLoss loss) {
    if (loss == PolicyLoss::sapo) return;
    const double low = f.of_ratios(PolicySums::clip_low), high = f.of_ratios(PolicySums::clip_high);
    if (loss == PolicyLoss::cispo) return metrics.emplace_back("cispo_clip_ratio", high), void();
    metrics.insert(metrics.end(), {{"clip_ratio/low_mean", low},
                                   {"clip_ratio/low_min", -f.extreme(PolicyExtremes::minus_clip_low_min)},
                                   {"clip_ratio/high_mean", high},
                                   {"clip_ratio/high_max", f.extreme(PolicyExtremes::clip_high_max)},
                                   {"clip_ratio/region_mean", low + high}});
}

}  // namespace

ObjectiveBuffers PolicyObjective::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                          const HeadSettings& settings) const {
    ObjectiveBuffers b = lay_out_head(arena, config, shape.targets, settings);
    b.entropy = arena.tensor("head", DType::f64, {shape.targets});
    b.numbers = arena.tensor("head", DType::f64, {shape.sequences, PolicyNumbers::count});
    if (options_.importance) b.importance = arena.tensor("head", DType::f32, {shape.terms});
    if (settings.training && !one_pass()) b.term_slopes = arena.tensor("head", DType::f64, {shape.terms});
    return b;
}

void PolicyObjective::check(const Batch& batch) const {
    if (std::ssize(batch.sequences) != batch.samples)
        fail(Exit::data, "a batch of stage grpo has {} sequences in {} samples, expected one in each",
             batch.sequences.size(), batch.samples);
    if (!needs_reference()) return;
    const std::vector<float>& reference = batch.logps.reference;
    const auto unknown = std::ranges::count_if(reference, [](float logp) { return std::isnan(logp); });
    if (unknown > 0)
        fail(Exit::data, "beta is {}, but {} of {} learned tokens of a batch have no reference log-probability",
             options_.settings.beta, unknown, reference.size());
}

PolicyTerms PolicyObjective::terms_of(const Context& ctx, const ObjectiveStep& s) const {
    const DeviceBatch& batch = s.batch;
    PolicyTerms terms{.table = batch.terms,
                      .lengths = batch.lengths,
                      .advantages = batch.advantages,
                      .old = batch.old,
                      .reference = needs_reference() ? batch.reference : Tensor(),
                      .rewards = batch.rewards,
                      .settings = options_.settings,
                      // Only one of the two divides.
                      .totals = {s.total, s.total, options_.max_completion_length}};
    if (!options_.importance || batch.old.empty() || batch.sampled.empty()) return terms;
    importance_factors(ctx, {.factors = s.buffers.importance,
                             .old = batch.old,
                             .sampled = batch.sampled,
                             .begins = batch.terms.begins,
                             .settings = *options_.importance});
    terms.importance = s.buffers.importance;
    return terms;
}

void PolicyObjective::measure(const Context& ctx, const ObjectiveStep& s) const {
    measure_nll(ctx, s, options_.temperature);
}

void PolicyObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    const ObjectiveBuffers& b = s.buffers;
    const PolicyTerms terms = terms_of(ctx, s);
    HeadLoss head{.nll = b.nll,
                  .entropy = b.entropy,
                  .logits = b.logits,
                  .hidden = s.acts.hidden,
                  .weight = s.model.weights().head,
                  .targets = s.batch.targets,
                  .temperature = options_.temperature};
    const auto with_gradients = [&] {
        head.dhidden = s.acts.dhidden;
        if (s.batch.targets.numel() > 0)
            head.dweight = s.gradients->views.head;
        else if (s.gradients->matrices == Grad::overwrite)
            clear(ctx, s.gradients->views.head);
        head.dweight_mode = s.gradients->matrices;
    };
    if (s.gradients && one_pass()) {
        with_gradients();
        head.policy = terms;
    }
    head_loss(ctx, head);
    policy_loss(ctx, {.sums = s.sums.slice(0, 0, PolicySums::count),
                      .extremes = s.sums.slice(0, LossSums::sums, LossSums::sums + PolicyExtremes::count),
                      .slopes = s.gradients && !one_pass() ? b.term_slopes : Tensor(),
                      .scratch = b.numbers,
                      .nll = b.nll,
                      .entropy = b.entropy,
                      .terms = terms});
    if (!s.gradients || one_pass()) return;
    target_scales(ctx, {.scales = s.batch.scales, .slopes = b.term_slopes, .of_targets = s.batch.terms.of_targets});
    with_gradients();
    head.entropy = {};
    head.scales = s.batch.scales;
    head_loss(ctx, head);
}

std::vector<Metric> PolicyObjective::metrics(const LossSums& sums, Phase) const {
    const Figures f(sums, options_.settings.ratio);
    std::vector<Metric> metrics;
    if (f.sum(PolicySums::rewards) > 0) metrics = {{"reward", f.reward()}, {"reward_std", f.reward_std()}};
    if (needs_reference()) metrics.emplace_back("kl", f.of_terms(PolicySums::kl));
    metrics.emplace_back("entropy", f.of_terms(PolicySums::entropy));
    add_clip_ratios(metrics, f, options_.settings.loss);
    metrics.insert(metrics.end(), {{"ratio/mean", f.of_ratios(PolicySums::ratio)},
                                   {"ratio/min", -f.extreme(PolicyExtremes::minus_ratio_min)},
                                   {"ratio/max", f.extreme(PolicyExtremes::ratio_max)},
                                   {"ratio/outside", f.of_ratios(PolicySums::outside)}});
    if (options_.importance)
        metrics.insert(metrics.end(),
                       {{"sampling/importance_sampling_ratio/min", -f.extreme(PolicyExtremes::minus_importance_min)},
                        {"sampling/importance_sampling_ratio/mean", f.of_terms(PolicySums::importance)},
                        {"sampling/importance_sampling_ratio/max", f.extreme(PolicyExtremes::importance_max)}});
    metrics.insert(metrics.end(), {{"completions/mean_length", f.of_sequences(PolicySums::tokens)},
                                   {"completions/min_length", -f.extreme(PolicyExtremes::minus_tokens_min)},
                                   {"completions/max_length", f.extreme(PolicyExtremes::tokens_max)}});
    // Of no terms there is no extreme.
    for (auto& [name, value] : metrics)
        if (!std::isfinite(std::get<double>(value))) value = 0.0;
    return metrics;
}

std::string PolicyObjective::figures(const LossSums& sums, Phase phase) const {
    const Figures f(sums, options_.settings.ratio);
    std::string text = fmt::format("loss {:.4f}", sums.mean());
    if (f.sum(PolicySums::rewards) > 0) text += fmt::format(", reward {:.3f}", f.reward());
    if (needs_reference()) text += fmt::format(", kl {:.4f}", f.of_terms(PolicySums::kl));
    text += fmt::format(", entropy {:.3f}", f.of_terms(PolicySums::entropy));
    if (options_.settings.loss != PolicyLoss::sapo)
        text += fmt::format(", clipped {:.1f} %",
                            100 * (f.of_ratios(PolicySums::clip_low) + f.of_ratios(PolicySums::clip_high)));
    if (phase == Phase::evaluation) text += fmt::format(", {:.0f} answers", f.sum(PolicySums::sequences));
    return text;
}

std::string PolicyObjective::misfit(const LossSums& first) const {
    const Figures f(first, options_.settings.ratio);
    const double outside = f.of_ratios(PolicySums::outside);
    if (!(outside > most_outside(options_.settings.ratio))) return {};
    return fmt::format(
        "before the first update the ratio of new to old probabilities is {:.3f} on average, and {:.1f} % of the "
        "ratios "
        "are outside [0.8, 1.25]; expected are ratios near 1: were the answers drawn with this model, chat template, "
        "tokenizer and temperature {}? old_logps: start computes the old log-probabilities anew",
        f.of_ratios(PolicySums::ratio), 100 * outside, options_.temperature);
}

}  // namespace colonnade
