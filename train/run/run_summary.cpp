#include "train/run/run_summary.h"

#include "engine/device/human_units.h"
#include "engine/io/progress.h"
#include "train/log/curve_picture.h"
#include "train/log/metrics_log.h"

namespace colonnade {
namespace {

void print_line(const char* what, const std::string& value) {
    fmt::print("{:<14} {}\n", what, value);
}

void print_curves(const std::string& output_dir, const RunSummary& run) {
    const std::string log = output_dir + "/metrics.jsonl", path = output_dir + "/loss.png";
    const Series loss = read_series(log, "loss"), eval = read_series(log, "eval_loss");
    std::vector<Series> series = {loss, eval};
    const auto last = static_cast<double>(run.last_step);
    if (run.unigram_loss > 0) series.push_back({"unigram", {0, last}, {run.unigram_loss, run.unigram_loss}});
    draw_curves(path, series, {.title = "loss"});
    fmt::print("{}\n", curve_text(loss));
    print_line("curves", path);
    if (!eval.steps.empty() && eval.steps.front() == 0)
        print_line("eval loss", fmt::format("{:.4f} before training", eval.values.front()));
}

}  // namespace

std::string merged_folder(const Config& config) {
    return config.output_dir + "/merged";
}

void print_summary(const Config& config, const RunSummary& run) {
    fmt::print("\n");
    if (config.report_to.contains(Report::jsonl)) print_curves(config.output_dir, run);
    print_line("trained", fmt::format("{} steps, {} tokens in {}, {:.0f} tokens/s", run.steps, human_count(run.tokens),
                                      human_duration(run.seconds), run.seconds > 0 ? run.tokens / run.seconds : 0));
    print_line("packing", fmt::format("{:.1f} % full", 100 * run.fill));
    if (!run.eval.empty()) print_line("eval", run.eval);
    if (run.unigram_loss > 0) print_line("unigram loss", fmt::format("{:.4f}", run.unigram_loss));
    print_line(config.finetuning_type == Finetuning::lora ? "adapters" : "model", config.output_dir);
    if (config.export_merged) print_line("merged model", merged_folder(config));
}

}  // namespace colonnade
