// bench_layers: times every op at one model size and prints the median of the repeats; on a GPU with events in its
// stream. Memory-bound ops print GB/s for the bytes that they must move, GEMMs print GFLOP/s.

#include <omp.h>

#include <algorithm>
#include <functional>

#include "engine/device/arena.h"
#include "engine/device/philox.h"
#include "engine/device/timing.h"
#include "engine/program/command_line.h"
#include "layers/embedding.h"
#include "layers/gated_linear.h"
#include "layers/gather.h"
#include "layers/head_loss.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "layers/swiglu.h"

namespace colonnade {
namespace {

struct Unit {
    const char* name;
    double per_work;  ///< bytes or FLOPs per unit of work
};
constexpr Unit memory{"GB/s", 1}, compute{"GFLOP/s", 2};
constexpr Grad fresh = Grad::overwrite, onto = Grad::accumulate;

struct Bench {
    int64_t tokens = 4096, hidden = 256, ffn = 704, vocab = 8000, heads = 4, kv_heads = 4, chunk = 512;
    int repeats = 9;
    Device device = Device::cpu;

    void run() {
        if (hidden % (2 * heads) != 0)
            fail(Exit::config, "--hidden {} with --heads {}: expected a multiple of twice the heads", hidden, heads);
        arena = Arena(device);
        groups();
        if (device == Device::cuda) gpu = std::make_unique<Gpu>();
        ctx = {.device = device, .profile = &profile, .gpu = gpu.get()};
        arena = Arena(device, arena.bytes());
        fmt::print("{} tokens in {} on {}\n", tokens, name_of(dtype()),
                   gpu ? gpu->name() : fmt::format("{} threads", omp_get_max_threads()));
        groups();
    }

  private:
    std::unique_ptr<Gpu> gpu;
    Arena arena{Device::cpu};  // the first pass over the groups plans it, without timing
    Profile profile;
    Context ctx;

    DType dtype() const { return device == Device::cuda ? DType::bf16 : DType::f32; }
    int64_t size() const { return static_cast<int64_t>(bytes_of(dtype())); }

    /// Runs the groups of ops, which share memory.
    void groups() {
        const auto start = arena.mark();
        for (const auto group : {&Bench::norms, &Bench::rope_and_swiglu, &Bench::rows, &Bench::linear, &Bench::head}) {
            (this->*group)();
            arena.release(start);
        }
    }

    /// A tensor whose element i is value(i).
    template <typename T, typename Value>
    Tensor filled(std::initializer_list<int64_t> shape, Value&& value) {
        const Tensor t = arena.tensor("", dtype_of<T>(), shape);
        if (arena.planning()) return t;
        const auto fill = [&](void* out, int64_t first, int64_t count) {
            for (int64_t i = 0; i < count; ++i) static_cast<T*>(out)[i] = value(first + i);
        };
        if (gpu)
            gpu->upload(t, fill);
        else
            fill(t.data, 0, t.numel());
        return t;
    }
    /// Pseudo-random numbers in [-0.5, 0.5).
    static float scattered(int64_t i) {
        return static_cast<float>(static_cast<uint32_t>(i) * 2654435761u >> 8) * 0x1p-24f - 0.5f;
    }
    /// Activations and weights.
    Tensor values(std::initializer_list<int64_t> shape) {
        if (device == Device::cpu) return sums(shape);
        return filled<bf16>(shape, [](int64_t i) { return bf16{bf16_from_float(scattered(i))}; });
    }
    /// Statistics and gradients of parameters.
    Tensor sums(std::initializer_list<int64_t> shape) { return filled<float>(shape, scattered); }
    template <typename Value>
    Tensor indices(int64_t count, Value&& value) {
        return filled<int32_t>({count}, [&](int64_t i) { return static_cast<int32_t>(value(i)); });
    }
    Tensor scratch(int64_t bytes) { return device == Device::cpu ? Tensor() : arena.tensor("", DType::u8, {bytes}); }

    /// Runs per sample: several on a GPU, so that the stream has no gaps.
    int runs() const { return gpu ? 5 : 1; }
    /// Seconds per run.
    double sample(const std::function<void()>& op) {
        profile.clear();
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < runs(); ++i) op();
        if (!gpu) return seconds_since(start);
        gpu->collect_phases(profile);
        double seconds = 0;
        for (const auto& [phase, s] : profile.seconds()) seconds += s;
        return seconds / runs();
    }
    /// `work` is bytes moved or multiply-adds.
    void time(const char* name, int64_t work, const Unit& unit, const std::function<void()>& op) {
        if (arena.planning()) return;
        if (gpu) sample(op);  // loads the kernels and plans the GEMMs
        std::vector<double> seconds(static_cast<size_t>(repeats));
        for (double& s : seconds) s = sample(op);
        const double middle = median(std::move(seconds)), rate = unit.per_work * static_cast<double>(work) / middle;
        fmt::print("{:<26}{:>9.3f} ms {:>9.1f} {}\n", name, middle * 1e3, rate * 1e-9, unit.name);
    }

    void norms() {
        const int64_t n = size() * tokens * hidden, dim = hidden / heads;
        const Tensor in = values({tokens, hidden}), delta = values({tokens, hidden}), sum = values({tokens, hidden});
        const Tensor out = values({tokens, hidden}), rstd = sums({tokens});
        const Tensor w = values({hidden}), dw = sums({hidden}), room = scratch(rmsnorm_scratch_bytes(hidden));
        time("rmsnorm forward", 4 * n, memory, [&] { rmsnorm_forward(ctx, {out, rstd, sum, in, delta, w, 1e-5}); });
        time("rmsnorm forward, no delta", 2 * n, memory,
             [&] { rmsnorm_forward(ctx, {.out = out, .rstd = rstd, .in = in, .weight = w, .eps = 1e-5}); });
        time("rmsnorm backward", 3 * n, memory, [&] {
            rmsnorm_backward(ctx, {out, fresh, dw, in, sum, rstd, w, room});
        });
        time("rmsnorm backward, onto", 4 * n, memory, [&] {
            rmsnorm_backward(ctx, {out, onto, dw, in, sum, rstd, w, room});
        });
        const Tensor q = in.view({tokens, heads, dim}), dq = sum.view({tokens, heads, dim});
        const Tensor q_out = out.view({tokens, heads, dim}), q_rstd = sums({tokens, heads});
        const Tensor qw = w.slice(0, 0, dim), dqw = dw.slice(0, 0, dim);
        const Tensor q_room = scratch(rmsnorm_scratch_bytes(dim));
        time("q norm forward", 2 * n, memory,
             [&] { rmsnorm_forward(ctx, {.out = q_out, .rstd = q_rstd, .in = q, .weight = qw, .eps = 1e-5}); });
        time("q norm backward", 3 * n, memory, [&] {
            rmsnorm_backward(ctx, {dq, fresh, dqw, q_out, q, q_rstd, qw, q_room});
        });
    }

    void rope_and_swiglu() {
        const int64_t dim = hidden / heads, rotated = heads + kv_heads;
        const Tensor packed = values({tokens, rotated + kv_heads, dim});  // q, k and v
        const Tensor cos = sums({tokens, dim / 2}), sin = sums({tokens, dim / 2});
        const Tensor positions = indices(tokens, [](int64_t i) { return i; });
        const RopeFrequencies frequencies = rope_frequencies(dim, 1e4, {});
        const int64_t angles = 4 * tokens * dim;
        time("rope angles", angles, memory, [&] { rope_angles(ctx, {cos, sin, positions, frequencies}); });
        time("rope of q and k", 2 * size() * tokens * rotated * dim + angles, memory, [&] {
            rope_apply(ctx, {packed.slice(1, 0, rotated), cos, sin});
        });
        const Tensor out = values({tokens, ffn});
        const Tensor gate_up = values({tokens, 2 * ffn}), dgate_up = values({tokens, 2 * ffn});
        const int64_t n = size() * tokens * ffn;
        time("swiglu forward", 3 * n, memory, [&] { swiglu_forward(ctx, {out, gate_up}); });
        time("swiglu backward", 5 * n, memory, [&] { swiglu_backward(ctx, {dgate_up, out, gate_up}); });
    }

    void rows() {
        const int64_t n = size() * tokens * hidden;
        const Tensor table = values({vocab, hidden}), dtable = sums({vocab, hidden});
        const Tensor out = values({tokens, hidden}), some = values({tokens / 2, hidden});
        std::vector<int32_t> drawn(static_cast<size_t>(tokens));
        for (size_t i = 0; i < drawn.size(); ++i)
            drawn[i] = static_cast<int32_t>(Philox{1, 0}.below(i, static_cast<uint64_t>(vocab)));
        const Tensor ids = indices(tokens, [&](int64_t i) { return drawn[static_cast<size_t>(i)]; });
        const Tensor half = indices(tokens / 2, [](int64_t i) { return 2 * i; });
        TokenIndex index = TokenIndex::lay_out(arena, "", tokens);
        if (!arena.planning()) fill_token_index(ctx, index, drawn);
        // A row of the gradient is read and written once per different token.
        const int64_t sums_moved = 2 * 4 * index.distinct * hidden;
        time("embedding forward", 2 * n, memory, [&] { embedding_forward(ctx, {out, ids, table}); });
        time("embedding backward", n + sums_moved, memory, [&] { embedding_backward(ctx, {dtable, out, index}); });
        time("gather half", n, memory, [&] { gather_rows(ctx, {some, out, half}); });
        time("scatter half", 2 * n, memory, [&] { scatter_rows(ctx, {out, some, half}); });
    }

    void linear() {
        const int64_t width = 2 * ffn, work = tokens * hidden * width;
        const Tensor in = values({tokens, hidden}), din = values({tokens, hidden}), out = values({tokens, width});
        const Tensor w = values({width, hidden}), dw = sums({width, hidden});
        const Tensor bias = values({width}), dbias = sums({width}), room = scratch(linear_scratch_bytes(width));
        const Tensor gated = values({tokens, ffn});
        time("linear forward", work, compute, [&] { linear_forward(ctx, {.out = out, .in = in, .weight = w}); });
        time("linear forward, bias", work, compute,
             [&] { linear_forward(ctx, {.out = out, .in = in, .weight = w, .bias = bias}); });
        time("gate_up, swiglu forward", work, compute, [&] {
            linear_forward(ctx, {.out = out, .in = in, .weight = w});
            swiglu_forward(ctx, {gated, out});
        });
        time("gate_up, swiglu fused", work, compute,
             [&] { gate_up_swiglu_forward(ctx, {.out = gated, .gate_up = out, .in = in, .weight = w}); });
        const Tensor down = values({hidden, ffn}), dout = values({tokens, width});
        time("down, swiglu backward", work / 2, compute, [&] {
            linear_backward(ctx, {.din = gated, .dout = in, .weight = down});
            swiglu_backward(ctx, {.dgate_up = dout, .dout = gated, .gate_up = out});
        });
        time("down, swiglu fused", work / 2, compute, [&] { down_swiglu_backward(ctx, {dout, gated, in, down, out}); });
        time("linear backward", 2 * work, compute,
             [&] { linear_backward(ctx, {.din = din, .dweight = dw, .dout = out, .in = in, .weight = w}); });
        time("bias gradient", size() * tokens * width, memory,
             [&] { linear_backward(ctx, {.dbias = dbias, .dout = out, .in = in, .weight = w, .scratch = room}); });
    }

    void head() {
        const Tensor in = values({tokens, hidden}), din = values({tokens, hidden}), logits = values({chunk, vocab});
        const Tensor w = values({vocab, hidden}), dw = sums({vocab, hidden});
        const Tensor nll = filled<double>({tokens}, scattered), targets = indices(tokens, [](int64_t) { return 0; });
        const Tensor scales = filled<double>({tokens}, [](int64_t) { return 1e-3; });
        const HeadLoss args{.nll = nll,
                            .dhidden = din,
                            .dweight = dw,
                            .logits = logits,
                            .hidden = in,
                            .weight = w,
                            .targets = targets,
                            .scales = scales};
        time("head and loss", 3 * tokens * vocab * hidden, compute, [&] { head_loss(ctx, args); });
        if (arena.planning()) return;
        // Phases of the last sample.
        const double loss = profile.seconds().at("loss"), gemm = profile.seconds().at("gemm");
        const double rate = 2 * static_cast<double>(runs() * size() * tokens * vocab) / loss;
        fmt::print("  of which softmax {:.1f} %, {:.1f} GB/s\n", 100 * loss / (loss + gemm), rate * 1e-9);
    }
};

}  // namespace

Work bench_layers_command(CLI::App& app) {
    const auto shared = std::make_shared<Bench>();
    Bench& bench = *shared;
    app.add_option_function<std::string>(
           "--device", [&](const std::string& device) { bench.device = device == "cuda" ? Device::cuda : Device::cpu; },
           "cpu in f32, cuda in bf16")
        ->check(CLI::IsMember({"cpu", "cuda"}))
        ->default_str("cpu");
    const CLI::Range range(1, 1 << 20);  // no count below overflows in this range
    app.add_option("--tokens", bench.tokens, "tokens per batch")->check(range)->capture_default_str();
    app.add_option("--hidden", bench.hidden, "width of the model")->check(range)->capture_default_str();
    app.add_option("--ffn", bench.ffn, "width of the feed-forward block")->check(range)->capture_default_str();
    app.add_option("--vocab", bench.vocab, "vocabulary")->check(range)->capture_default_str();
    app.add_option("--heads", bench.heads, "attention heads")->check(range)->capture_default_str();
    app.add_option("--kv-heads", bench.kv_heads, "key and value heads")->check(range)->capture_default_str();
    app.add_option("--chunk", bench.chunk, "rows of logits at a time")->check(range)->capture_default_str();
    app.add_option("--repeats", bench.repeats, "runs of each op")->check(range)->capture_default_str();
    return [shared] {
        shared->run();
        return 0;
    };
}

}  // namespace colonnade
