// bench_layers: the time of every op at one model size, median of the repeats. Memory-bound ops print GB/s over the
// bytes that they cannot avoid moving, products print GFLOP/s.

#include <omp.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "engine/arena.h"
#include "engine/command_line.h"
#include "engine/philox.h"
#include "layers/embedding.h"
#include "layers/gather.h"
#include "layers/head_loss.h"
#include "layers/linear.h"
#include "layers/rmsnorm.h"
#include "layers/rope.h"
#include "layers/swiglu.h"

namespace colonnade {
namespace {

constexpr std::pair memory{"GB/s", 4}, compute{"GFLOP/s", 2};  // and what one piece of work counts
constexpr Grad fresh = Grad::overwrite;

struct Bench {
    int64_t tokens = 4096, hidden = 256, ffn = 704, vocab = 8000, heads = 4;
    int repeats = 9;

    void run() {
        if (hidden % (2 * heads) != 0)
            fail(Exit::config, "--hidden {} with --heads {}: expected a multiple of twice the heads", hidden, heads);
        groups();
        arena = Arena(Device::cpu, arena.bytes());
        fmt::print("{} tokens in f32 on {} threads\n", tokens, omp_get_max_threads());
        groups();
    }

  private:
    Arena arena{Device::cpu};  // the first walk through the groups plans it and times nothing
    Profile profile;
    Context ctx{.device = Device::cpu, .profile = &profile};

    /// Groups of ops, which share memory.
    void groups() {
        const auto start = arena.mark();
        for (const auto group : {&Bench::norms, &Bench::rope_and_swiglu, &Bench::rows, &Bench::linear, &Bench::head}) {
            (this->*group)();
            arena.release(start);
        }
    }
    Tensor floats(std::initializer_list<int64_t> shape) {
        const Philox philox{.seed = 1, .stream = arena.mark()};
        const Tensor t = arena.tensor("", DType::f32, shape);
        if (arena.planning()) return t;
        for (int64_t i = 0; i < t.numel(); ++i)
            t.as<float>()[i] = static_cast<float>(philox.uniform(static_cast<uint64_t>(i)) - 0.5);
        return t;
    }
    /// `work` is floats moved or multiply-adds done.
    void time(const char* name, int64_t work, const std::pair<const char*, int>& unit,
              const std::function<void()>& op) const {
        if (arena.planning()) return;
        std::vector<double> seconds(static_cast<size_t>(repeats));
        for (double& s : seconds) {
            const auto start = std::chrono::steady_clock::now();
            op();
            s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
        std::ranges::sort(seconds);
        const double median = seconds[seconds.size() / 2], rate = unit.second * static_cast<double>(work) / median;
        fmt::print("{:<22}{:>9.3f} ms {:>9.1f} {}\n", name, median * 1e3, rate * 1e-9, unit.first);
    }

    void norms() {
        const int64_t n = tokens * hidden, dim = hidden / heads;
        const Tensor in = floats({tokens, hidden}), delta = floats({tokens, hidden}), sum = floats({tokens, hidden});
        const Tensor out = floats({tokens, hidden}), rstd = floats({tokens});
        const Tensor w = floats({hidden}), dw = floats({hidden});
        time("rmsnorm forward", 4 * n, memory, [&] { rmsnorm_forward(ctx, {out, rstd, sum, in, delta, w, 1e-5}); });
        time("rmsnorm backward", 3 * n, memory, [&] { rmsnorm_backward(ctx, {out, fresh, dw, in, sum, rstd, w}); });
        const Tensor q = in.view({tokens, heads, dim}), dq = sum.view({tokens, heads, dim});
        const Tensor q_out = out.view({tokens, heads, dim}), q_rstd = floats({tokens, heads});
        const Tensor qw = w.slice(0, 0, dim), dqw = dw.slice(0, 0, dim);
        time("q norm forward", 2 * n, memory, [&] { rmsnorm_forward(ctx, {q_out, q_rstd, {}, q, {}, qw, 1e-5}); });
        time("q norm backward", 3 * n, memory, [&] { rmsnorm_backward(ctx, {dq, fresh, dqw, q_out, q, q_rstd, qw}); });
    }

    void rope_and_swiglu() {
        const int64_t dim = hidden / heads;
        const Tensor q = floats({tokens, heads, dim}), cos = floats({tokens, dim / 2}), sin = floats({tokens, dim / 2});
        std::vector<int32_t> positions(static_cast<size_t>(tokens));
        std::iota(positions.begin(), positions.end(), 0);
        const RopeFrequencies frequencies = rope_frequencies(dim, 1e4, {});
        time("rope angles", tokens * dim, memory, [&] { rope_angles(ctx, {cos, sin, positions, frequencies}); });
        time("rope", 2 * tokens * hidden, memory, [&] { rope_apply(ctx, {q, cos, sin}); });
        const Tensor out = floats({tokens, ffn});
        const Tensor gate_up = floats({tokens, 2 * ffn}), dgate_up = floats({tokens, 2 * ffn});
        time("swiglu forward", 3 * tokens * ffn, memory, [&] { swiglu_forward(ctx, {out, gate_up}); });
        time("swiglu backward", 5 * tokens * ffn, memory, [&] { swiglu_backward(ctx, {dgate_up, out, gate_up}); });
    }

    void rows() {
        const int64_t n = tokens * hidden;
        const Tensor table = floats({vocab, hidden});
        const Tensor out = floats({tokens, hidden}), some = floats({tokens / 2, hidden});
        std::vector<int32_t> ids(static_cast<size_t>(tokens)), half(static_cast<size_t>(tokens / 2));
        for (size_t i = 0; i < ids.size(); ++i)
            ids[i] = static_cast<int32_t>(Philox{1, 0}.below(i, static_cast<uint64_t>(vocab)));
        for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<int32_t>(2 * i);
        time("embedding forward", 2 * n, memory, [&] { embedding_forward(ctx, {out, ids, table}); });
        time("embedding backward", 3 * n, memory, [&] { embedding_backward(ctx, {table, out, ids}); });
        time("gather half", n, memory, [&] { gather_rows(ctx, {some, out, half}); });
        time("scatter half", 5 * n / 2, memory, [&] { scatter_rows(ctx, {out, some, half}); });
    }

    void linear() {
        const int64_t width = 2 * ffn, work = tokens * hidden * width;
        const Tensor in = floats({tokens, hidden}), din = floats({tokens, hidden}), out = floats({tokens, width});
        const Tensor w = floats({width, hidden}), dw = floats({width, hidden}), bias = floats({width});
        time("linear forward", work, compute, [&] { linear_forward(ctx, {out, in, w, {}}); });
        time("linear forward, bias", work, compute, [&] { linear_forward(ctx, {out, in, w, bias}); });
        time("linear backward", 2 * work, compute, [&] { linear_backward(ctx, {din, fresh, dw, {}, out, in, w}); });
        time("bias gradient", tokens * width, memory, [&] { linear_backward(ctx, {{}, fresh, {}, bias, out, in, w}); });
    }

    void head() {
        const Tensor in = floats({tokens, hidden}), din = floats({tokens, hidden}), logits = floats({512, vocab});
        const Tensor w = floats({vocab, hidden}), dw = floats({vocab, hidden});
        std::vector<double> nll(static_cast<size_t>(tokens));
        const std::vector<int32_t> targets(nll.size(), 0);
        const std::vector<double> scales(nll.size(), 1e-3);
        profile.clear();
        const HeadLoss args{nll, {}, din, dw, logits, in, w, targets, scales};
        time("head and loss", 3 * tokens * vocab * hidden, compute, [&] { head_loss(ctx, args); });
        if (arena.planning()) return;
        const double loss = profile.seconds().at("loss"), gemm = profile.seconds().at("gemm");
        fmt::print("  of which softmax {:.1f} %\n", 100 * loss / (loss + gemm));
    }
};

}  // namespace
}  // namespace colonnade

int main(int argc, char** argv) {
    colonnade::Bench bench;
    CLI::App app("Times every op of a model of this size on the CPU");
    const CLI::Range range(1, 1 << 20);  // up to which no count below overflows
    app.add_option("--tokens", bench.tokens, "rows")->check(range)->capture_default_str();
    app.add_option("--hidden", bench.hidden, "width of the model")->check(range)->capture_default_str();
    app.add_option("--ffn", bench.ffn, "width of the feed-forward block")->check(range)->capture_default_str();
    app.add_option("--vocab", bench.vocab, "vocabulary")->check(range)->capture_default_str();
    app.add_option("--heads", bench.heads, "attention heads")->check(range)->capture_default_str();
    app.add_option("--repeats", bench.repeats, "runs of each op")->check(range)->capture_default_str();
    return colonnade::run_command("bench_layers", app, argc, argv, [&] {
        bench.run();
        return 0;
    });
}
