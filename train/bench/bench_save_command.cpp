// bench_save: times a checkpoint of a published model's shape with random numbers: how long a save stops training, how
// much slower the steps beside it are, the time to the commit, and a load; beside them the rate of the disk itself,
// measured by one file of the same size in writes of 8 MiB and an fsync, as dd does. docs/benchmarks.md explains the
// figures.

#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "engine/device/device.h"
#include "engine/device/human_units.h"
#include "engine/device/philox.h"
#include "engine/device/timing.h"
#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/bench/model_shapes.h"
#include "train/folders/background_save.h"

namespace colonnade {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
    std::string model = "llama3.2-1b", folder;
    int64_t layers = 0, vocab = 0, length = 2048, steps = 10;
    bool cpu = false;
};

void line(const char* what, const std::string& value) {
    fmt::print("{:<10} {}\n", what, value);
    std::fflush(stdout);
}
std::string rate(double bytes, double seconds) {
    return fmt::format("{:.2f} s, {:.2f} GB/s", seconds, bytes / seconds / 1e9);
}

/// Seconds in which the disk takes `bytes` of numbers that it cannot compress.
double time_of_disk(const std::string& folder, size_t bytes) {
    std::vector<uint64_t> noise((size_t{8} << 20) / sizeof(uint64_t));
    const Philox random{1, 0};
    for (size_t i = 0; i < noise.size(); ++i) noise[i] = random.bits(i);
    OutputFile file(folder + "/disk");
    const auto start = Clock::now();
    for (size_t at = 0; at < bytes; at += noise.size() * 8)
        file.write(noise.data(), std::min(bytes - at, noise.size() * 8));
    file.close();
    const double seconds = seconds_since(start);
    remove_file(folder + "/disk");
    return seconds;
}

/// Removes the files from the page cache, so that they are read from the disk.
void forget(const std::string& folder) {
    for (const std::string& name : names_in(folder)) {
        const int fd = ::open((folder + "/" + name).c_str(), O_RDONLY | O_CLOEXEC);
        ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        ::close(fd);
    }
}

class Bench {
  public:
    Bench(const Options& o, Gpu* gpu)
        : config_(shape_of(o)),
          learner_(config_, {.max_length = o.length, .recompute = Recompute::block, .gpu = gpu, .seed = 1}),
          random_{7, 0} {
        Sequence& sequence = sample_.sequences.emplace_back();
        for (int64_t i = 0; i < o.length; ++i)
            sequence.tokens.push_back(static_cast<int32_t>(
                random_.below(static_cast<uint64_t>(i), static_cast<uint64_t>(config_.vocab_size))));
        sequence.learned = {{1, static_cast<int32_t>(o.length), 1}};
        batch_ = make_batch({{&sample_}});
        learner_.fill_weights([&](const Tensor& flat) {
            float* const w = flat.as<float>();
#pragma omp parallel for schedule(static)
            for (int64_t i = 0; i < flat.numel(); ++i)
                w[i] = 0.02f * static_cast<float>(random_.normal(static_cast<uint64_t>(i)));
        });
    }
    /// Seconds of one step, its result included.
    double step(BackgroundSave* saver) {
        const auto start = Clock::now();
        const Context ctx = learner_.context();
        learner_.begin_step();
        learner_.accumulate(ctx, batch_, {.total = batch_.target_weight, .last = true});
        if (saver) saver->hold();
        learner_.update(ctx, {}, 1e-5, 1);
        learner_.result();
        return seconds_since(start);
    }
    Learner& learner() {
        return learner_;
    }

  private:
    static ModelConfig shape_of(const Options& o) {
        ModelConfig config = model_shape(o.model);
        if (o.layers > 0) config.num_hidden_layers = o.layers;
        if (o.vocab > 0) config.vocab_size = o.vocab;
        return config;
    }
    ModelConfig config_;
    Learner learner_;
    Philox random_;
    Sample sample_;
    Batch batch_;
};

int run(const Options& o) {
    std::unique_ptr<Gpu> gpu;
    if (!o.cpu && !cuda_devices().empty()) gpu = std::make_unique<Gpu>();
    make_folders(o.folder);
    Bench bench(o, gpu.get());
    auto start = Clock::now();
    BackgroundSave saver(bench.learner());
    line("device", fmt::format("{}; the copy's memory took {:.2f} s", gpu ? gpu->name() : "CPU", seconds_since(start)));
    const TrainerState state{.step = 1, .since_log = {}, .data_key = "bench", .config_yaml = "# bench_save\n"};

    bench.step(nullptr);
    std::vector<double> alone, beside;
    for (int64_t i = 0; i < o.steps; ++i) alone.push_back(bench.step(nullptr));
    start = Clock::now();
    saver.begin(checkpoint_folder(o.folder, 1), state, 0);
    const double stall = seconds_since(start);
    std::optional<SavedCheckpoint> saved;
    while (!saved) {
        beside.push_back(bench.step(&saver));
        saved = saver.poll();
    }
    const auto bytes = static_cast<double>(saved->bytes);
    line("state", human_bytes(saved->bytes));
    line("disk", rate(bytes, time_of_disk(o.folder, saved->bytes)));
    line("stall", fmt::format("{:.3f} s; the first step beside the save took {:.3f} s", stall, beside.front()));
    line("steps", fmt::format("{:.1f} ms alone (median of {}), {:.1f} ms beside the save (median of {}): {:+.1f} %",
                              1e3 * median(alone), alone.size(), 1e3 * median(beside), beside.size(),
                              100 * (median(beside) / median(alone) - 1)));
    line("commit", rate(bytes, saved->seconds));
    start = Clock::now();
    saver.begin(checkpoint_folder(o.folder, 2), state, 0);
    saver.wait();
    line("no steps", rate(bytes, seconds_since(start)));
    forget(checkpoint_folder(o.folder, 2));
    for (const char* what : {"load", "load again"}) {
        start = Clock::now();
        load_checkpoint(checkpoint_folder(o.folder, 2), bench.learner());
        if (gpu) gpu->synchronize();
        line(what, rate(bytes, seconds_since(start)));
    }
    for (const int64_t step : {1, 2}) remove_folder(checkpoint_folder(o.folder, step));
    return 0;
}

}  // namespace

Work bench_save_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    Options& o = *options;
    app.add_option("folder", o.folder, "folder for the checkpoints, on the disk to measure")
        ->required()
        ->type_name("FOLDER");
    app.add_option("--model", o.model, fmt::format("shape: {}", fmt::join(model_shape_names(), ", ")))
        ->capture_default_str();
    app.add_option("--layers", o.layers, "layers instead of the shape's own")->check(CLI::Range(1, 1000));
    app.add_option("--vocab", o.vocab, "vocabulary instead of the shape's own")->check(CLI::Range(2, 1 << 20));
    app.add_option("--length", o.length, "tokens of a step")->check(CLI::Range(2, 1 << 20))->capture_default_str();
    app.add_option("--steps", o.steps, "steps without a save")->check(CLI::Range(1, 10'000))->capture_default_str();
    app.add_flag("--cpu", o.cpu, "do not use a GPU");
    return [options] { return run(*options); };
}

}  // namespace colonnade
