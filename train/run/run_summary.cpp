#include "train/run/run_summary.h"

#include <unistd.h>

#include <algorithm>

#include "engine/device/human_units.h"
#include "engine/device/terminal.h"
#include "train/log/curve_text.h"
#include "train/log/metrics_log.h"

namespace colonnade {
namespace {

void print_line(const char* what, const std::string& value) {
    const std::string label = fmt::format("{:<14} ", what);
    const std::string text = for_terminal(label + value, STDOUT_FILENO, label.size());
    fmt::print("{}\n", has_colours(STDOUT_FILENO) ? styled(label, Style::dim) + text.substr(label.size()) : text);
}

void print_curves(const Config& config) {
    const std::string log = config.output_dir + "/metrics.jsonl";
    const Series loss = read_series(log, "loss"), eval = read_series(log, "eval_loss");
    // Without a terminal, in ASCII and as narrow as a page.
    const bool terminal = is_terminal(STDOUT_FILENO);
    const auto columns = terminal ? std::clamp<size_t>(terminal_columns(STDOUT_FILENO) - 1, 40, 200) : 72;
    fmt::print("{}\n",
               curve_text({loss, eval}, {.columns = static_cast<int>(columns), .utf8 = terminal && has_utf8()}));
    if (!eval.steps.empty() && eval.steps.front() == 0)
        print_line("eval loss", fmt::format("{:.4f} before training", eval.values.front()));
}

}  // namespace

std::string merged_folder(const Config& config) {
    return config.output_dir + "/merged";
}

void print_summary(const Config& config, const RunSummary& run) {
    fmt::print("\n");
    if (config.report_to.contains(Report::jsonl)) print_curves(config);
    print_line("report", config.output_dir + "/report.html");
    print_line("trained", fmt::format("{} steps, {} tokens in {}, {:.0f} tokens/s", run.steps, human_count(run.tokens),
                                      human_duration(run.seconds), run.seconds > 0 ? run.tokens / run.seconds : 0));
    print_line("packing", fmt::format("{:.1f} % full", 100 * run.fill));
    if (!run.eval.empty()) print_line("eval", run.eval);
    if (run.unigram_loss > 0) print_line("unigram loss", fmt::format("{:.4f}", run.unigram_loss));
    print_line(config.finetuning_type == Finetuning::lora ? "adapters" : "model", config.output_dir);
    if (config.export_merged) print_line("merged model", merged_folder(config));
}

}  // namespace colonnade
