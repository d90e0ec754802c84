// explain-step: which rows the loss and the gradient of a step come from.

#include <unistd.h>

#include "engine/device/terminal.h"
#include "engine/program/command_line.h"
#include "train/run/explain_step.h"

namespace colonnade {
namespace {

std::string beside_log(double found, const std::optional<double>& logged) {
    if (!logged) return "";
    return found == *logged ? ", as logged" : fmt::format(", logged {:.6g}", *logged);
}

void show(const ExplainedStep& e, int64_t rows) {
    fmt::print("step {}, computed again from {}\n", e.step,
               e.begun_at > 0 ? fmt::format("checkpoint-{}", e.begun_at) : "the weights that the run began with");
    fmt::print("loss           {:.6g}{}\n", e.loss, beside_log(e.loss, e.logged_loss));
    fmt::print("grad_norm      {:.6g}{}\n", e.gradient_norm, beside_log(e.gradient_norm, e.logged_gradient_norm));
    fmt::print("learning rate  {:.4g}\n", e.learning_rate);
    fmt::print("samples        {}, each alone; the largest gradient first\n\n", e.samples.size());
    fmt::print("{:>10} {:>10} {:>8} {:>7}  {}\n", "grad_norm", "loss", "of loss", "tokens", "row");
    for (size_t i = 0; i < e.samples.size() && static_cast<int64_t>(i) < rows; ++i) {
        const SampleShare& s = e.samples[i];
        fmt::print("{:>10.4g} {:>10.4g} {:>6.1f} % {:>7}  {}\n", s.gradient_norm, s.loss, 100 * s.share, s.tokens,
                   s.place);
        if (!s.text.empty()) fmt::print("{}", for_terminal(fmt::format("           {}\n", s.text), STDOUT_FILENO, 11));
    }
    if (std::ssize(e.samples) > rows) fmt::print("... and {} more: --rows\n", std::ssize(e.samples) - rows);
}

}  // namespace

Work explain_step_command(CLI::App& app) {
    struct Options {
        std::string run;
        int64_t step = 0, rows = 10;
    };
    const auto options = std::make_shared<Options>();
    app.add_option("RUN", options->run, "output_dir of a run")->required();
    app.add_option("--step", options->step,
                   "the step; default: the last spike, else the step with the largest grad_norm")
        ->check(at_least(1));
    app.add_option("--rows", options->rows, "rows to show")->capture_default_str()->check(at_least(1));
    app.footer(
        "Computes the steps from the newest checkpoint before it again, then every sample of the step alone and the "
        "whole "
        "step. Nothing of the run is changed.");
    return [options] {
        const int64_t step = options->step > 0 ? options->step : conspicuous_step(options->run);
        show(explain_step(options->run, step), options->rows);
        return 0;
    };
}

}  // namespace colonnade
