#include "attention/c_api/colonnade_flashmask.h"

#include <string>
#include <unordered_set>

#include "attention/flashmask.h"
#include "engine/device/version.h"

using namespace colonnade;

namespace {

thread_local std::string last_error;

/// Runs the body of a function of the interface. Returns the code of the error that it throws, or 0.
template <typename Body>
int guarded(const Body& body) noexcept {
    try {
        try {
            body();
            return COLONNADE_OK;
        } catch (...) {
            last_error.clear();
            const Error error = error_in_flight();
            last_error = error.what();
            return static_cast<int>(error.exit());
        }
    } catch (...) {  // no memory for the text
        return COLONNADE_NO_MEMORY;
    }
}

Device device_of(int64_t device) {
    if (device == COLONNADE_CPU) return Device::cpu;
    if (device == COLONNADE_CUDA) return Device::cuda;
    fail(Exit::internal, "device {}: expected {} (CPU) or {} (CUDA)", device, COLONNADE_CPU, COLONNADE_CUDA);
}

DType dtype_of_code(int64_t dtype) {
    switch (dtype) {
        case COLONNADE_F32:
            return DType::f32;
        case COLONNADE_F64:
            return DType::f64;
        case COLONNADE_BF16:
            return DType::bf16;
        default:
            fail(Exit::internal, "dtype {}: expected {} (f32), {} (f64) or {} (bf16)", dtype, COLONNADE_F32,
                 COLONNADE_F64, COLONNADE_BF16);
    }
}

/// A context on a GPU and a stream of the caller. The thread's current device is set back at its end.
class BorrowedGpu {
  public:
    BorrowedGpu(int64_t device_index, void* stream)
        : gpu_(static_cast<int>(device_index), static_cast<CUstream_st*>(stream)) {}
    Context context(bool deterministic) {
        return {.device = Device::cuda, .gpu = &gpu_, .deterministic = deterministic};
    }

  private:
    CurrentDevice kept_;
    Gpu gpu_;
};

// --- Masks

/// The sizes and `causal` of a mask.
ColumnMask sizes_of(const colonnade_mask& m) {
    constexpr int64_t limit = ColumnMask::max_length;
    if (m.batch < 0 || m.heads < 1 || m.rows < 0 || m.columns < 0 || m.rows > limit || m.columns > limit)
        fail(Exit::data,
             "column mask: batch {}, heads {}, rows {}, columns {}: expected heads from 1, the others 0..{}", m.batch,
             m.heads, m.rows, m.columns, limit);
    if (m.causal != 0 && m.causal != 1) fail(Exit::data, "column mask: causal is {}, expected 0 or 1", m.causal);
    return {.causal = m.causal == 1, .batch = m.batch, .heads = m.heads, .rows = m.rows, .columns = m.columns};
}

MaskVectors vectors_of(const colonnade_mask& m) {
    const int given = (m.lts ? 1 : 0) | (m.lte ? 2 : 0) | (m.uts ? 4 : 0) | (m.ute ? 8 : 0);
    switch (given) {
        case 0:
            return MaskVectors::none;
        case 1:
            return MaskVectors::lts;
        case 1 | 2:
            return MaskVectors::lts_lte;
        case 1 | 8:
            return MaskVectors::lts_ute;
        case 1 | 2 | 4 | 8:
            return MaskVectors::all;
        default:
            fail(Exit::data,
                 "column mask: vectors{}{}{}{} are given, expected none, lts, lts and lte, lts and ute, or all four",
                 m.lts ? " lts" : "", m.lte ? " lte" : "", m.uts ? " uts" : "", m.ute ? " ute" : "");
    }
}

ColumnMask mask_of(const colonnade_mask& m) {
    ColumnMask mask = sizes_of(m);
    mask.vectors = vectors_of(m);
    const int64_t entries = mask.batch * mask.heads * mask.columns;
    const auto take = [&](std::vector<int32_t>& to, const int32_t* from) {
        if (from) to.assign(from, from + entries);
    };
    take(mask.lts, m.lts), take(mask.lte, m.lte), take(mask.uts, m.uts), take(mask.ute, m.ute);
    return mask;
}

/// Writes the mask to memory of the caller.
void give(colonnade_mask* to, int32_t* memory, const ColumnMask& mask) {
    const auto write = [&](const std::vector<int32_t>& from) -> const int32_t* {
        if (from.empty()) return nullptr;
        int32_t* const begin = memory;
        memory = std::copy(from.begin(), from.end(), memory);
        return begin;
    };
    *to = {mask.batch, mask.heads, mask.rows, mask.columns, mask.causal, nullptr, nullptr, nullptr, nullptr};
    to->lts = write(mask.lts), to->lte = write(mask.lte), to->uts = write(mask.uts), to->ute = write(mask.ute);
}

/// The mask of rows of document ids; a document is a run of equal ids.
ColumnMask mask_of_ids(const int32_t* ids, int64_t batch, int64_t length, bool causal) {
    ColumnMask mask = sizes_of({batch, 1, length, length, causal, nullptr, nullptr, nullptr, nullptr});
    mask.vectors = causal ? MaskVectors::lts : MaskVectors::lts_ute;
    for (int64_t b = 0; b < batch; ++b, ids += length) {
        std::unordered_set<int32_t> seen;
        for (int64_t begin = 0, end = 0; begin < length; begin = end) {
            while (end < length && ids[end] == ids[begin]) ++end;
            const bool padding = ids[begin] < 0;
            if (!padding && !seen.insert(ids[begin]).second)
                fail(Exit::data,
                     "document ids: batch {}, token {}: id {} comes back after another one, expected the tokens of a "
                     "document in one run",
                     b, begin, ids[begin]);
            const auto run = static_cast<size_t>(end - begin);
            mask.lts.insert(mask.lts.end(), run, padding ? 0 : static_cast<int32_t>(end));
            if (!causal) mask.ute.insert(mask.ute.end(), run, padding ? 0 : static_cast<int32_t>(begin));
        }
    }
    return mask;
}

// --- Calls of the passes

/// Memory of the plan of a mask of these sizes, within `plan`.
GpuTilePlan plan_memory(const void* plan, int64_t bytes, const ColumnMask& sizes) {
    if (plan == nullptr || reinterpret_cast<uintptr_t>(plan) % 16 != 0)
        fail(Exit::internal, "the plan is at {}, expected device memory at a multiple of 16 bytes", plan);
    Arena arena(Device::cuda, const_cast<void*>(plan), static_cast<size_t>(std::max<int64_t>(bytes, 0)));
    return GpuTilePlan::lay_out(arena, sizes);
}

/// A problem as the C++ interface takes it.
struct Problem {
    const colonnade_problem& given;
    Device device;
    DType dtype;
    ColumnMask mask;
    TilePlan plan;

    explicit Problem(const colonnade_problem& p)
        : given(p), device(device_of(p.device)), dtype(dtype_of_code(p.dtype)) {
        if (device == Device::cpu) {
            mask = mask_of(p.mask);
            plan = make_tile_plan(Context(), {}, mask);
        } else {
            mask = sizes_of(p.mask);
            plan = gpu_tile_plan_in(plan_memory(p.plan, p.plan_bytes, mask), mask);
        }
    }

    Tensor tensor(const char* name, const colonnade_heads& x, int64_t tokens, int64_t heads) const {
        Tensor t(x.data, dtype, {mask.batch, tokens, heads, given.head_dim}, device);
        if (t.data == nullptr && t.numel() > 0) fail(Exit::internal, "flashmask: {} is null, expected {}", name, t);
        // The stride of a dim of size 1 has no meaning; the contiguous one stays.
        if (mask.batch > 1) t.stride[0] = x.batch_stride;
        if (tokens > 1) t.stride[1] = x.token_stride;
        if (heads > 1) t.stride[2] = x.head_stride;
        return t;
    }
    Tensor queries(const char* name, const colonnade_heads& x) const { return tensor(name, x, mask.rows, given.heads); }
    Tensor keys(const char* name, const colonnade_heads& x) const {
        return tensor(name, x, mask.columns, given.kv_heads);
    }
    Tensor lse(const void* data) const {
        Tensor t(const_cast<void*>(data), sum_dtype(dtype), {mask.batch, given.heads, mask.rows}, device);
        if (t.data == nullptr && t.numel() > 0) fail(Exit::internal, "flashmask: lse is null, expected {}", t);
        return t;
    }
    /// Calls pass(context) on the device of the problem.
    template <typename Pass>
    void run(bool deterministic, const Pass& pass) const {
        if (device == Device::cpu) return pass(Context());
        BorrowedGpu gpu(given.device_index, given.stream);
        pass(gpu.context(deterministic));
    }
};

/// Bytes of scratch of a problem: of its queries only the shape counts.
int64_t scratch_bytes(const colonnade_problem& p) {
    const ColumnMask sizes = sizes_of(p.mask);
    if (p.heads < 1 || p.head_dim < 1)
        fail(Exit::internal, "{} heads of head_dim {}: expected 1 or more", p.heads, p.head_dim);
    return flashmask_scratch_bytes(
        Tensor(nullptr, dtype_of_code(p.dtype), {sizes.batch, sizes.rows, p.heads, p.head_dim}, device_of(p.device)));
}

/// Returns the bytes that `body` computes, or -1 after an error.
template <typename Body>
int64_t bytes_or_error(const Body& body) {
    int64_t bytes = -1;
    guarded([&] { bytes = body(); });
    return bytes;
}

}  // namespace

int colonnade_flashmask_abi(void) {
    return COLONNADE_FLASHMASK_ABI;
}
const char* colonnade_flashmask_version(void) {
    return COLONNADE_VERSION;
}
const char* colonnade_last_error(void) {
    return last_error.c_str();
}

int colonnade_flashmask_runs(int64_t device, int64_t device_index, int64_t dtype, int64_t head_dim) {
    return guarded([&] {
        const Device on = device_of(device);
        const DType type = dtype_of_code(dtype);
        if (on == Device::cuda) BorrowedGpu(device_index, nullptr);
        if ((on == Device::cuda) != (type == DType::bf16))
            fail(Exit::config, "no kernel for {} on {}: expected f32 or f64 on cpu, bf16 on cuda", type, on);
        if (!flashmask_runs(on, head_dim))
            fail(Exit::config, "no kernel for head_dim {} on {}: expected {}", head_dim, on,
                 on == Device::cpu ? "1..256" : "64, 96, 128 or 256");
    });
}

int colonnade_check_mask(const colonnade_mask* mask) {
    return guarded([&] { mask_of(*mask).validate(); });
}

int colonnade_document_mask(colonnade_mask* mask, int32_t* memory, const int32_t* cu_seqlens, int64_t documents,
                            int64_t length, int64_t causal) {
    return guarded([&] {
        if (documents < 0 || cu_seqlens[0] != 0)
            fail(Exit::data, "cu_seqlens begins with {} for {} documents, expected 0 for 0 or more", cu_seqlens[0],
                 documents);
        const std::vector<int64_t> ends(cu_seqlens + 1, cu_seqlens + documents + 1);
        give(mask, memory, causal ? causal_document_mask(length, ends) : document_mask(length, ends));
    });
}

int colonnade_document_id_mask(colonnade_mask* mask, int32_t* memory, const int32_t* ids, int64_t batch, int64_t length,
                               int64_t causal) {
    return guarded([&] { give(mask, memory, mask_of_ids(ids, batch, length, causal != 0)); });
}

int colonnade_tree_mask(colonnade_mask* mask, int32_t* memory, const int64_t* shared, const int64_t* own,
                        int64_t sequences, int64_t length) {
    return guarded([&] {
        std::vector<WalkedSequence> walk;
        for (int64_t s = 0; s < sequences; ++s) walk.push_back({.shared = shared[s], .own = own[s]});
        give(mask, memory, tree_mask(length, walk));
    });
}

int colonnade_add_window(colonnade_mask* mask, int32_t* memory, int64_t window) {
    return guarded([&] {
        const ColumnMask given = mask_of(*mask);
        given.validate();
        give(mask, memory, given.with_sliding_window(window));
    });
}

int64_t colonnade_plan_bytes(const colonnade_mask* mask) {
    return bytes_or_error([&] {
        Arena planned(Device::cuda);
        GpuTilePlan::lay_out(planned, sizes_of(*mask));
        return static_cast<int64_t>(planned.bytes());
    });
}

int colonnade_build_plan(void* plan, int64_t plan_bytes, const colonnade_mask* mask, int64_t device_index,
                         void* stream) {
    return guarded([&] {
        const ColumnMask sizes = sizes_of(*mask);
        static_cast<void>(vectors_of(*mask));
        const auto on_device = [&](const int32_t* vector) {
            if (!vector) return Tensor();
            return Tensor(const_cast<int32_t*>(vector), DType::i32, {sizes.batch, sizes.heads, sizes.columns},
                          Device::cuda);
        };
        BorrowedGpu gpu(device_index, stream);
        make_gpu_tile_plan(gpu.context(false), plan_memory(plan, plan_bytes, sizes), sizes,
                           {.lts = on_device(mask->lts),
                            .lte = on_device(mask->lte),
                            .uts = on_device(mask->uts),
                            .ute = on_device(mask->ute)});
    });
}

int colonnade_flashmask_forward(const colonnade_forward* args) {
    return guarded([&] {
        const Problem p(args->problem);
        const FlashMaskForward call{.out = p.queries("out", args->out),
                                    .lse = p.lse(args->lse),
                                    .q = p.queries("q", args->q),
                                    .k = p.keys("k", args->k),
                                    .v = p.keys("v", args->v),
                                    .mask = p.mask,
                                    .plan = p.plan,
                                    .scale = args->problem.scale};
        p.run(false, [&](const Context& ctx) { flashmask_forward(ctx, call); });
    });
}

int colonnade_flashmask_backward(const colonnade_backward* args) {
    return guarded([&] {
        const Problem p(args->problem);
        const FlashMaskBackward call{
            .dq = p.queries("dq", args->dq),
            .dk = p.keys("dk", args->dk),
            .dv = p.keys("dv", args->dv),
            .dout = p.queries("dout", args->dout),
            .out = p.queries("out", args->out),
            .lse = p.lse(args->lse),
            .q = p.queries("q", args->q),
            .k = p.keys("k", args->k),
            .v = p.keys("v", args->v),
            .mask = p.mask,
            .plan = p.plan,
            .scale = args->problem.scale,
            .scratch = Tensor(args->scratch, DType::u8, {std::max<int64_t>(args->scratch_bytes, 0)}, Device::cuda)};
        p.run(args->deterministic != 0, [&](const Context& ctx) { flashmask_backward(ctx, call); });
    });
}

int64_t colonnade_scratch_bytes(const colonnade_problem* problem) {
    return bytes_or_error([&] { return scratch_bytes(*problem); });
}
