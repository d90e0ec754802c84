#pragma once
// SampleNoise: what layers/embedding_noise.h reads about a batch. A sample's stream is a hash of its tokens and of the
// update, so that the noise of a sample in a step does not depend on its row, its micro-step or its rank.

#include "data/packing/batch.h"
#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

struct SampleNoise {
    Tensor scales, streams;

    static SampleNoise lay_out(Arena& arena, int64_t tokens);
    struct Settings {
        double alpha;
        int64_t hidden;
        int64_t update;  ///< updates done before this step
    };
    void fill(const Context& ctx, const Batch& batch, const Settings& settings) const;
};

}  // namespace colonnade
