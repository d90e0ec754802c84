#include "train/program/starter_config.h"

#include <algorithm>
#include <sstream>

#include "engine/program/help.h"
#include "train/config/keys.h"
#include "train/run/local_names.h"
#include "train/run/run_arguments.h"
#include "train/run/run_model.h"

namespace colonnade {
namespace {

constexpr int64_t looked_at = 1000;  // rows of each data set

/// A key of the file. With `other`, it stands in a comment with that value.
struct ShownKey {
    const char *name, *other = "";
};
constexpr ShownKey shown_keys[] = {{"model_name_or_path"},
                                   {"stage"},
                                   {"finetuning_type"},
                                   {"lora_rank", "16"},
                                   {"lora_alpha", "32"},
                                   {"lora_target", "all"},
                                   {"gradient_checkpointing"},
                                   {"zero_stage", "1"},
                                   {"datasets"},
                                   {"val_size"},
                                   {"max_length"},
                                   {"chat_template"},
                                   {"beta"},
                                   {"packing_length"},
                                   {"per_device_train_batch_size"},
                                   {"gradient_accumulation_steps"},
                                   {"num_train_epochs"},
                                   {"max_steps", "100"},
                                   {"optim", "adamw_8bit"},
                                   {"learning_rate"},
                                   {"lr_scheduler_type"},
                                   {"warmup_ratio"},
                                   {"weight_decay"},
                                   {"seed"},
                                   {"output_dir"},
                                   {"logging_steps"},
                                   {"report_to"},
                                   {"eval_strategy"},
                                   {"eval_table_size", "4"},
                                   {"load_best_model_at_end", "true"},
                                   {"early_stopping_patience", "3"},
                                   {"save_strategy"},
                                   {"save_total_limit"},
                                   {"resume_from_checkpoint", "auto"}};

struct Lengths {
    std::vector<int64_t> tokens;  ///< of the rows, in order of size
    int64_t longest() const { return tokens.empty() ? 0 : tokens.back(); }
    int64_t share(double part) const {
        return tokens.empty() ? 0 : tokens[static_cast<size_t>(part * static_cast<double>(tokens.size() - 1))];
    }
};

/// The lengths of the first rows of the data; what the run's encoder makes of them.
Lengths lengths_of(Config c, const RunText& text, int64_t vocab_size) {
    c.max_length = int64_t{1} << 22, c.packing_length = int64_t{1} << 23;  // longer than any row that is of use
    const std::shared_ptr<const Encoder> encoder = make_encoder(c, text, vocab_size);
    Lengths lengths;
    TokenCache cache;
    for (const DatasetSpec& set : c.datasets) {
        RowReader reader(set, c.rows());
        RowText row;
        for (int64_t i = 0; i < looked_at && reader.next_text(row); ++i)
            lengths.tokens.push_back(encoder->encode(reader.parse(row), reader.place(row), cache).full_length);
    }
    std::ranges::sort(lengths.tokens);
    return lengths;
}

/// The least power of two that holds every row, as far as the model goes.
int64_t max_length_for(const Lengths& lengths, int64_t model_limit) {
    int64_t length = 128;
    while (length < lengths.longest() && length < 65'536) length *= 2;
    return std::min(length, model_limit);
}

/// Lines of comment.
std::string comment(const std::string& text) {
    std::string lines;
    std::istringstream in(wrapped(text, 0, help_width - 2));
    for (std::string line; std::getline(in, line);) lines += "# " + line + '\n';
    return lines;
}

/// "key: value" as YAML writes it.
std::string assignment(const Key<Config>& key, const Config& config) {
    YAML::Emitter out;
    out << YAML::BeginMap << YAML::Key << key.name << YAML::Value;
    key.write(out, config);
    out << YAML::EndMap;
    return std::string(out.c_str()) + '\n';
}

/// The data sets with the keys that have a value: path and split.
std::string datasets_text(const Config& config) {
    std::string text = "datasets:\n";
    for (const DatasetSpec& set : config.datasets) {
        text += "  - path: " + yaml_text(set.path) + '\n';
        if (!set.split.empty()) text += "    split: " + yaml_text(set.split) + '\n';
    }
    return text;
}

/// One key with its comment; `remark` adds to it.
std::string key_text(const Key<Config>& key, const ShownKey& shown, const Config& config, const std::string& remark) {
    std::string about = first_sentence(key.doc);
    if (key.what.starts_with("one of ")) about += " O" + key.what.substr(1) + '.';
    const std::string text = comment(about) + (remark.empty() ? "" : comment("Here: " + remark + '.'));
    if (*shown.other) return text + fmt::format("# {}: {}\n", key.name, shown.other);
    return text + (key.name == "datasets" ? datasets_text(config) : assignment(key, config));
}

/// The file. `remarks`: what is known here about a key.
std::string starter_yaml(const Config& config, const std::map<std::string, std::string>& remarks) {
    std::string yaml = comment(
        "Written by colonnade init. To go on: colonnade plan FILE, then colonnade train FILE.\n"
        "Paths are seen from the folder in which it is started.\n"
        "These are the keys that people change. All of them: colonnade train --keys.");
    for (const Section& section : config_sections()) {
        std::string keys;
        for (const Key<Config>& key : section.keys) {
            const auto shown = std::ranges::find(shown_keys, key.name, [](const ShownKey& k) { return k.name; });
            if (shown == std::end(shown_keys) ||
                (key.name == "beta" && config.stage != Stage::dpo && config.stage != Stage::kto))
                continue;
            const auto remark = remarks.find(key.name);
            keys += key_text(key, *shown, config, remark == remarks.end() ? "" : remark->second);
        }
        if (!keys.empty()) yaml += fmt::format("\n# --- {} ---\n{}", section.title, keys);
    }
    return yaml;
}

}  // namespace

StarterConfig starter_config(const StarterRequest& request) {
    RunArguments arguments{.names = {request.model}};
    arguments.names.insert(arguments.names.end(), request.data.begin(), request.data.end());
    const LoadedConfig loaded = load_run(arguments);
    Config config = loaded.config;
    Config local = config;
    StarterConfig starter{.notices = loaded.notices};
    for (std::string& notice : resolve_names(local)) starter.notices.push_back(std::move(notice));
    for (size_t i = 0; i < config.datasets.size(); ++i) config.datasets[i].split = local.datasets[i].split;
    const RunText text = load_text(local);
    const ModelConfig model = model_of_run(local, text.folder);
    const Lengths lengths = lengths_of(local, text, model.vocab_size);
    config.max_length = max_length_for(lengths, model.max_position_embeddings);
    config.packing_length =
        config.rows() == RowKind::preferences ? 2 * config.max_length : std::max<int64_t>(config.max_length, 2048);
    const auto rows = std::ssize(lengths.tokens);
    if (rows >= 200) config.val_size = 0.02, config.eval_strategy = Every::epoch;

    std::map<std::string, std::string> remarks;
    remarks["max_length"] = fmt::format("of {} rows the longest has {} tokens, half have {} or fewer", rows,
                                        lengths.longest(), lengths.share(0.5));
    const auto over = lengths.tokens.end() - std::ranges::upper_bound(lengths.tokens, config.max_length);
    if (over > 0) remarks["max_length"] += fmt::format("; the model's limit makes {} of them too long", over);
    if (text.chat_template)
        remarks["chat_template"] = fmt::format("{}{}", text.chat_template->is_of_model() ? "the model's own, " : "",
                                               text.chat_template->name());
    remarks["stage"] = fmt::format("the rows have the form {}", look_at_rows(local.datasets[0]).type);
    starter.notices.push_back(remarks["max_length"]);
    // What the file says is what a run reads.
    starter.yaml = starter_yaml(config, remarks);
    parse_config(starter.yaml, "the config");
    return starter;
}

}  // namespace colonnade
