#include "layers/ranking_loss.h"

#include <algorithm>

#include "layers/cuda_kernels.h"
#include "layers/shape_check.h"

namespace colonnade {

void ranking_loss(const Context& ctx, const RankingLoss& a) {
    const ShapeCheck check(ctx, "ranking_loss", ctx.device == Device::cuda ? DType::bf16 : DType::f64);
    const int64_t answers = a.scores.size(0), samples = a.sample_begins.size(0) - 1, pairs = a.margins.size(0);
    check("sums", a.sums, DType::f64, {RankingSums::count});
    check("extremes", a.extremes, DType::f64, {2});
    check("dscores", a.dscores, DType::f64, {answers});
    check("scores", a.scores, DType::f64, {answers});
    check("sample_begins", a.sample_begins, DType::i32, {samples + 1});
    check("places", a.places, DType::i32, {answers});
    check("pairs", a.pairs, DType::i32, {pairs, 2});
    check("pair_begins", a.pair_begins, DType::i32, {samples + 1});
    check("margins", a.margins, DType::f32, {pairs});
    check("weights", a.weights, DType::f32, {pairs});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::ranking_loss(ctx, a);
    const int32_t* const begins = a.sample_begins.as<int32_t>();
    const RankingArrays arrays = arrays_of(a);
    double* const extremes = a.extremes.as<double>();
    RankingSums total{};
    for (int64_t s = 0; s < samples; ++s) {
        require(begins[s] <= begins[s + 1] && begins[s + 1] <= answers,
                "ranking_loss: sample {} has answers [{}, {}) of {}", s, begins[s], begins[s + 1], answers);
        const RankedSample sample = ranked_sample(arrays, s);
        const RankingSums own = rank_answers({a.kind, a.center, a.scale}, sample);
        for (int i = 0; i < RankingSums::count; ++i) total.of[i] += own.of[i];
        for (int32_t i = 0; own.of[RankingSums::samples] > 0 && i < sample.answers; ++i) {
            extremes[0] = std::max(extremes[0], -sample.score(i));
            extremes[1] = std::max(extremes[1], sample.score(i));
        }
    }
    for (int i = 0; i < RankingSums::count; ++i) a.sums.as<double>()[i] += total.of[i];
}

}  // namespace colonnade
