#include "train/config/memory_keys.h"

namespace colonnade {

Section memory_section() {
    using C = Config;
    return {
        "Memory",
        {
            // Does not affect the weights: recomputed activations have the same bits.
            key("gradient_checkpointing", &C::gradient_checkpointing,
                "Activations that the backward pass recomputes instead of keeping them; results stay the same. "
                "selective: outputs of norms and SwiGLU, costs memory bandwidth only; block: everything but the input "
                "of each block, needs the least memory and costs a second forward pass, about a third more "
                "computation. true means block, false means none.")
                .also({"enable_activation_checkpointing"})
                .only_how_to_run(),
            key("offload_activations", &C::offload_activations,
                "The inputs of blocks are in pinned host memory between the forward and the backward pass of a GPU. "
                "Results stay the same. With gradient_checkpointing: block they are most of what is kept. true: the "
                "inputs of all blocks but the last two; a number: of at most this number of blocks, from the lowest "
                "trained one on.")
                .also({"activation_offloading", "enable_activation_offloading"})
                .only_how_to_run(),
            // Moves memory only: every step has the same bits.
            key("offload_weights", &C::offload_weights,
                "Blocks whose weights and gradients are in pinned host memory: 6 bytes per parameter (2 if frozen, "
                "less "
                "with base_quantization). A block comes to the GPU while the one before it computes; some 12,000 "
                "tokens or more per micro-step "
                "hide the copies. Embedding, head and the optimizer's state (offload_optimizer) stay. Results stay the "
                "same. true: all blocks; a number: of this number of blocks, spread over the model. On one rank, "
                "without muon.")
                .only_how_to_run(),
            key("fit", &C::fit,
                "auto: if the run needs more memory than there is, choose the settings with which it fits and is "
                "fastest by prediction. It chooses among settings that leave results as they are but for rounding: "
                "gradient_checkpointing, offload_activations, offload_weights, offload_optimizer, head_chunk, "
                "zero_stage (ranks of one machine), and fewer packs in a micro-step with as many more micro-steps. "
                "Keys that are given "
                "keep their values; the packs of a micro-step change unless gradient_accumulation_steps is given.")
                .only_how_to_run(),
            key("gpu_memory", &C::gpu_memory,
                "Memory of a GPU that the run may use, 1GiB of it for CUDA and its libraries. A plan above it is an "
                "error, and fit chooses for it. `plan` then answers for any GPU.")
                .default_is("what the GPU has")
                .only_how_to_run(),
            key("host_memory", &C::host_memory,
                "Host memory that the ranks of a machine may plan together: pinned memory beside a GPU, all "
                "planned memory on the CPU.")
                .default_is("what is free")
                .only_how_to_run(),
        }};
}

void check_memory(const Config& c, Rules& rules) {
    rules.expect(c.gpu_memory.bytes == 0 || c.gpu_memory.bytes > cuda_memory, {"gpu_memory"},
                 "gpu_memory: expected more than {}, which CUDA and its libraries take, found {}",
                 exact_bytes(cuda_memory), exact_bytes(static_cast<size_t>(c.gpu_memory.bytes)));
}

}  // namespace colonnade
