#pragma once
// The arguments of train, plan, prepare and check_packing: a YAML config, or a model and its data, and keys.
//
//     my.yaml learning_rate=1e-5
//     org/name chats.jsonl more/*.parquet --max-steps 100
//
// What names a config ends in .yaml or .yml, or is a stream (/dev/stdin, <(command)). Keys are key=value, --key=value or
// --key value; a path with a '=' in it is given as ./name=value.

#include "engine/ranks/ranks.h"
#include "train/config/config.h"

namespace colonnade {

struct RunArguments {
    std::vector<std::string> names{};  ///< one config, or a model and one or more data sets
    std::vector<std::string> keys{};
};

RunArguments split_run_arguments(const std::vector<std::string>& arguments);

/// The forms of these arguments, for help (engine/program/help.h).
constexpr const char* run_argument_forms =
    "CONFIG.yaml [KEY=VALUE...]\n"
    "MODEL DATA... [KEY=VALUE...]\n"
    "CONFIG.yaml  the config of a run: a file that ends in .yaml or .yml\n"
    "MODEL  a Hugging Face model folder, a name on the hub (org/name), or a GGUF file\n"
    "DATA  data files, folders, globs, or names of data sets on the hub\n"
    "KEY=VALUE  any key of the config, also as --KEY VALUE; colonnade train --keys lists them\n";

/// Reads the config, or makes one: stage by the form of the rows (preferences: dpo; rankings: rm; else sft), output_dir
/// runs/<model>-<data>; a notice says so. Throws Exit::config also for arguments that could mean several things.
LoadedConfig load_run(const RunArguments& arguments, const Ranks& ranks = one_rank());

/// ddp_timeout of the run, without a look at its data.
double timeout_of_ranks(const RunArguments& arguments);

/// What the rows of a data set are, by the first of them.
struct RowsFound {
    Stage stage = Stage::sft;
    std::string type;  ///< format of the rows
};
RowsFound look_at_rows(const DatasetSpec& local);

/// "runs/SmolLM2-135M-chats"
std::string default_output_dir(const std::string& model, const std::string& data);
/// Text as a value of YAML, in quotes if it needs them.
std::string yaml_text(const std::string& text);

}  // namespace colonnade
