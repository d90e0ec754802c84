#include "train/run/describe_run.h"

#include <filesystem>

namespace colonnade {
namespace {

/// Markdown shows it as it is.
std::string verbatim(const std::string& text) {
    return "```\n" + text + "```\n";
}

}  // namespace

std::string name_of_run(const Config& c) {
    const std::filesystem::path folder = std::filesystem::path(c.output_dir).lexically_normal();
    const std::string last = folder.has_filename() ? folder.filename() : folder.parent_path().filename();
    return c.run_name.empty() ? last : c.run_name;
}

RunDescription describe_run(const Config& c, const std::string& plan) {
    return {.project = c.project,
            .name = name_of_run(c),
            .config = values_shared_by_ranks(c),
            .texts = {{"config", verbatim(resolved_yaml(c))}, {"plan", verbatim(plan)}}};
}

LogFiles log_files(const Config& c) {
    return {.jsonl = c.report_to.contains(Report::jsonl),
            .tensorboard = c.report_to.contains(Report::tensorboard),
            .csv = c.report_to.contains(Report::csv),
            .wandb = c.report_to.contains(Report::wandb),
            .trackio = c.report_to.contains(Report::trackio),
            .mlflow = c.report_to.contains(Report::mlflow)};
}

}  // namespace colonnade
