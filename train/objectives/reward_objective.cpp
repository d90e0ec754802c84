#include "train/objectives/reward_objective.h"

#include "layers/score_head.h"

namespace colonnade {
namespace {

/// RankingSums have the layout of LossSums.
static_assert(RankingSums::count <= LossSums::sums && RankingSums::loss == 0 && RankingSums::weight == 1 &&
              RankingSums::correct == 2);
double sum_of(const LossSums& sums, RankingSums::Name name) {
    return sums.more[static_cast<size_t>(name) - RankingSums::margin];
}
double per_sample(const LossSums& sums, double sum) {
    const double samples = sum_of(sums, RankingSums::samples);
    return samples > 0 ? sum / samples : 0;
}
double margin_of(const LossSums& sums) {
    return per_sample(sums, sum_of(sums, RankingSums::margin));
}
double sample_accuracy(const LossSums& sums) {
    return per_sample(sums, sums.correct);
}

}  // namespace

ObjectiveBuffers RewardObjective::lay_out(Arena& arena, const ModelConfig&, const BatchShape& shape,
                                          const HeadSettings&) const {
    ObjectiveBuffers b;
    b.answers = arena.tensor("head", DType::f64, {shape.sequences});
    b.slopes = arena.tensor("head", DType::f64, {shape.sequences});
    return b;
}

void require_ranking(std::span<const AnswerPair> pairs, int64_t answers) {
    for (const AnswerPair& pair : pairs) {
        if (pair.margin != 0)
            fail(Exit::data, "a sample has a margin of {}, which only reward_loss: pairwise supports", pair.margin);
        if (pair.better > pair.worse || std::ssize(pairs) != answers * (answers - 1) / 2)
            fail(Exit::data,
                 "a sample has pairs of its own, which only reward_loss: pairwise supports: plackett_luce compares all "
                 "answers, best first");
    }
}

void RewardObjective::check(const Batch& batch) const {
    if (kind_ != RankingKind::plackett_luce) return;
    std::vector<int64_t> answers(static_cast<size_t>(batch.samples));
    for (const BatchSequence& sequence : batch.sequences) ++answers[static_cast<size_t>(sequence.sample)];
    for (size_t s = 0; s < answers.size(); ++s) {
        const auto begin = static_cast<size_t>(batch.pair_begins[s]),
                   end = static_cast<size_t>(batch.pair_begins[s + 1]);
        require_ranking(std::span(batch.pairs).subspan(begin, end - begin), answers[s]);
    }
}

void RewardObjective::measure(const Context& ctx, const ObjectiveStep& s) const {
    score_forward(ctx, {.scores = s.buffers.answers, .hidden = s.acts.hidden, .weight = s.model.weights().head});
}

void RewardObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    const ObjectiveBuffers& b = s.buffers;
    measure(ctx, s);
    ranking_loss(ctx, {.sums = s.sums.slice(0, 0, RankingSums::count),
                       .extremes = s.sums.slice(0, LossSums::sums, LossSums::sums + 2),
                       .dscores = b.slopes,
                       .scores = b.answers,
                       .places = s.batch.places,
                       .sample_begins = s.batch.sample_begins,
                       .pairs = s.batch.pairs.pairs,
                       .pair_begins = s.batch.pair_begins,
                       .margins = s.batch.margins,
                       .weights = s.batch.pairs.weights,
                       .kind = kind_,
                       .center = center_,
                       .scale = s.total > 0 ? 1 / s.total : 0});
    if (!s.gradients) return;
    score_backward(ctx, {.dhidden = s.acts.dhidden,
                         .dweight = s.gradients->views.head,
                         .dscores = b.slopes,
                         .hidden = s.acts.hidden,
                         .weight = s.model.weights().head});
}

std::vector<Metric> RewardObjective::metrics(const LossSums& sums, Phase) const {
    const double answers = sum_of(sums, RankingSums::answers);
    return {{"accuracy", sample_accuracy(sums)},
            {"margin", margin_of(sums)},
            {"min_reward", -sums.extremes[0]},
            {"mean_reward", answers > 0 ? sum_of(sums, RankingSums::reward) / answers : 0},
            {"max_reward", sums.extremes[1]}};
}

std::string RewardObjective::figures(const LossSums& sums, Phase phase) const {
    std::string text = fmt::format("loss {:.4f}, accuracy {:.1f} %, margin {:.4f}", sums.mean(),
                                   100 * sample_accuracy(sums), margin_of(sums));
    if (phase == Phase::evaluation) text += fmt::format(", {:.0f} samples", sum_of(sums, RankingSums::samples));
    return text;
}

}  // namespace colonnade
