#include "train/config/memory_keys.h"

namespace colonnade {

Section memory_section() {
    using C = Config;
    return {
        "Memory",
        {
            key("fit", &C::fit,
                "auto: if the run needs more memory than there is, choose the settings with which it fits and is "
                "fastest by prediction. It chooses among settings that leave results as they are but for rounding: "
                "gradient_checkpointing, offload_activations, offload_weights, offload_optimizer, head_chunk, "
                "zero_stage (ranks of "
                "one machine), and fewer packs in a micro-step with as many more micro-steps. Keys that are given "
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
