// The memory of a Learner: on its device, and in host memory beside it.

#include "train/step/learner.h"

namespace colonnade {

/// Before anything is allocated, and without a GPU too.
static void check_fp8(const ModelConfig& c, const LearnerOptions& o, Device device) {
    if (!o.fp8 || device == Device::cpu) return;
    std::string why = o.gpu ? why_no_fp8_products(o.gpu->compute_capability()) : "";
    for (const int64_t width : {c.hidden_size, c.intermediate_size, c.query_width(), c.qkv_width()})
        if (why.empty() && width % 16 != 0)
            why = fmt::format("a linear layer of this model has a side of {}, expected a multiple of 16", width);
    if (!why.empty()) fail(Exit::config, "compute: fp8: {}; use compute: bf16", why);
}

Learner::Workspace Learner::Workspace::lay_out(Arena& arena, const ModelConfig& config, const LearnerOptions& o,
                                               const BatchShape& shape, Pass pass, int64_t lowest) {
    const ActivationLayout acts = layout(o, arena.device(), shape, pass, lowest);
    const bool training = acts.training;
    Workspace w;
    w.batch = DeviceBatch::lay_out(arena, config, shape, o.objective->answers());
    if (training && o.neftune_noise_alpha > 0) w.noise = SampleNoise::lay_out(arena, shape.tokens());
    w.acts = Activations::lay_out(arena, config, acts);
    w.head =
        o.objective->lay_out(arena, config, shape, {.chunk = o.head_chunk, .dtype = acts.dtype, .training = training});
    return w;
}

ActivationLayout Learner::Workspace::layout(const LearnerOptions& o, Device device, const BatchShape& shape, Pass pass,
                                            int64_t lowest) {
    return {.packs = shape.packs,
            .length = shape.length,
            .dtype = o.dtype_on(device),
            .rows = shape.head_rows(o.objective->answers()),
            .training = pass == Pass::training,
            .recompute = o.recompute,
            .lora = o.lora,
            .quantised = o.base_code.has_value(),
            .fp8 = o.fp8,
            .lowest = lowest,
            .offloaded = o.offloaded_activations,
            .mlp_tile = o.mlp_tile};
}

std::pair<Arena, Arena> Learner::plans(const ModelConfig& config, const LearnerOptions& options, Device device) {
    check_fp8(config, options, device);
    Arena arena(device), host(Device::cpu);
    const ParameterList parameters = trained_parameters(config, options),
                        base = colonnade::base_parameters(config, options),
                        quantised = quantised_parameters(config, options);
    const State state = State::lay_out(arena, host, {parameters, base, quantised},
                                       spread_blocks(options.offloaded_weights, config.num_hidden_layers), options,
                                       GradientSync(parameters, options.sync));
    const size_t state_end = arena.mark();
    const BatchShape largest = BatchShape::largest(options.max_packs, options.max_length, options.density);
    const Pass pass = options.training ? Pass::training : Pass::inference;
    const Workspace workspace = Workspace::lay_out(arena, config, options, largest, pass, lowest_layer(parameters));
    OffloadedInputs::lay_out(host, config, workspace.acts.layout, nullptr);
    arena.release(state_end);
    Stage::lay_out(arena, state, options.hosted_piece);
    return {std::move(arena), std::move(host)};
}

Arena Learner::plan(const ModelConfig& config, const LearnerOptions& options, Device device) {
    return plans(config, options, device).first;
}

Arena Learner::host_plan(const ModelConfig& config, const LearnerOptions& options, Device device) {
    return plans(config, options, device).second;
}

Arena Learner::pinned_memory(const ModelConfig& config, const LearnerOptions& options) {
    try {
        return Arena::in_host_memory(options.gpu, host_plan(config, options, options.device()).bytes());
    } catch (const Error& e) {
        fail(e.exit(),
             "offload_activations, offload_weights and offload_optimizer need pinned host memory: {}; offload less "
             "(offload_activations: 8, offload_weights: 8, offload_optimizer: 0.5), raise the limit of locked memory "
             "(ulimit -l) or of the container, or set a "
             "smaller packing_length",
             e.what());
    }
}

}  // namespace colonnade
