#include "train/config/config.h"

#include <chrono>
#include <cstdio>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/limits.h"
#include "train/config/ported_keys.h"
#include "train/config/rules.h"

namespace colonnade {
namespace {

int64_t steps_of_share(double share, int64_t total) {
    return static_cast<int64_t>(std::ceil(share * static_cast<double>(total)));
}

using OnSection = std::function<void(const std::string& title)>;
using OnKey = std::function<void(const KeyText&)>;

/// Visits section by section, key by key; keys of the maps inside a section come at its end.
void visit_reference(const OnSection& on_section, const OnKey& on_key) {
    for (const Section& section : config_sections()) {
        on_section(section.title);
        for (const KeyText& key : describe_keys(section.keys, "")) on_key(key);
        for (const KeyText& key : section.nested) on_key(key);
    }
}

/// As it is written: with names of a hub instead of paths in its cache.
Config named(Config config) {
    for (std::string* name : config.names()) *name = config.name_of(*name);
    return config;
}

void visit_keys(const std::function<void(const Key<Config>&)>& visit) {
    for (const Section& section : config_sections())
        for (const Key<Config>& key : section.keys) visit(key);
}

void read_tree(std::string_view yaml, const std::string& name, const std::vector<std::string>& arguments,
               Config& config, Reading& reading) {
    ConfigNode root = parse_config_tree(yaml, name);
    apply_overrides(root, arguments, canonical_key, reading.problems);
    port_config(root, name, reading);
    read_config(root, config, reading);
}

}  // namespace

LoadedConfig load_config(const std::string& path, const std::vector<std::string>& arguments) {
    std::string yaml;
    try {
        yaml = read_file(path, limits::yaml_bytes, Readable::streams);
    } catch (const Error& e) {
        throw Error(e.exit() == Exit::data ? Exit::config : e.exit(), e.what());
    }
    return parse_config(yaml, path, arguments);
}

LoadedConfig parse_config(std::string_view yaml, const std::string& name, const std::vector<std::string>& arguments) {
    LoadedConfig loaded;
    Reading reading;
    read_tree(yaml, name, arguments, loaded.config, reading);
    settle_config(loaded.config, reading, name);
    reading.problems.raise(name);
    loaded.notices = std::move(reading.notices);
    for (const auto& [key, place] : reading.given) loaded.given.insert(key);
    return loaded;
}

WrittenConfig read_written(std::string_view yaml, const std::string& name, const std::vector<std::string>& arguments) {
    WrittenConfig written;
    Reading reading;
    read_tree(yaml, name, arguments, written.config, reading);
    for (const auto& [key, where] : reading.given) written.given.insert(key);
    return written;
}

std::vector<std::string*> Config::names() {
    std::vector<std::string*> all = {&model_name_or_path, &tokenizer_name_or_path, &adapter_name_or_path,
                                     &ref_model_name_or_path};
    for (std::vector<DatasetSpec>* sets : {&datasets, &eval_datasets})
        for (DatasetSpec& set : *sets) all.push_back(&set.path);
    return all;
}

std::string resolved_yaml(const Config& config) {
    const Config written = named(config);
    YAML::Emitter out;
    out << YAML::BeginMap;
    visit_keys([&](const Key<Config>& key) {
        out << YAML::Key << key.name << YAML::Value;
        key.write(out, written);
    });
    out << YAML::EndMap;
    return std::string(out.c_str()) + '\n';
}

std::vector<KeyValue> key_values(const Config& config) {
    const Config written = named(config), defaults;
    std::vector<KeyValue> values;
    visit_keys([&](const Key<Config>& key) {
        const auto text = [&](const Config& of) {
            YAML::Emitter out;
            out.SetSeqFormat(YAML::Flow);
            out.SetMapFormat(YAML::Flow);
            key.write(out, of);
            return std::string(out.c_str());
        };
        const bool fixed = key.default_text.empty();
        values.push_back({key.name, text(written), fixed ? text(defaults) : key.default_text, fixed});
    });
    return values;
}

/// A map of the keys in `given`, in which `prefix` precedes their names.
template <typename Struct>
static void write_given(const std::vector<Key<Struct>>& keys, YAML::Emitter& out, const Struct& value,
                        const std::string& prefix, const std::set<std::string>& given) {
    std::vector<Key<Struct>> shown;
    for (const Key<Struct>& key : keys)
        if (given.contains(prefix + key.name)) shown.push_back(key);
    write_keys(shown, out, value);
}

std::string changed_yaml(const Config& config, const std::set<std::string>& given) {
    const Config written = named(config), defaults;
    std::string text;
    visit_keys([&](const Key<Config>& key) {
        const auto first = given.lower_bound(key.name);  // the key, or one of the keys in its value
        if (first == given.end() || first->substr(0, first->find_first_of(".[")) != key.name) return;
        if (key.default_text.empty() && key.text(written) == key.text(defaults)) return;
        YAML::Emitter out;
        out.SetSeqFormat(YAML::Flow);
        out.SetMapFormat(YAML::Flow);
        const auto* const sets = key.name == "datasets"        ? &written.datasets
                                 : key.name == "eval_datasets" ? &written.eval_datasets
                                                               : nullptr;
        if (sets) {
            out << YAML::BeginSeq;
            for (size_t i = 0; i < sets->size(); ++i)
                write_given(dataset_keys(), out, (*sets)[i], fmt::format("{}[{}].", key.name, i), given);
            out << YAML::EndSeq;
        } else if (key.name == "model" && written.model) {
            write_given(model_keys(), out, *written.model, "model.", given);
        } else {
            key.write(out, written);
        }
        text += fmt::format("{}: {}\n", key.name, out.c_str());
    });
    return text;
}

std::vector<std::pair<std::string, std::string>> values_shared_by_ranks(const Config& config) {
    std::vector<std::pair<std::string, std::string>> values;
    visit_keys([&](const Key<Config>& key) {
        if (!key.differs_by_machine) values.emplace_back(key.name, key.text(config));
    });
    return values;
}

std::vector<std::string> config_changes(const Config& then, const Config& given) {
    const Config now = named(given);
    std::vector<std::string> changes;
    visit_keys([&](const Key<Config>& key) {
        if (!key.affects_weights) return;
        if (const std::string before = key.text(then), after = key.text(now); before != after)
            changes.push_back(fmt::format("{}: {}, now {}", key.name, before, after));
    });
    return changes;
}

std::string config_reference() {
    std::string page =
        "# Configuration\n\n"
        "One YAML file of `key: value` lines describes a run. Arguments after the file override single keys:\n"
        "`key=value`, `--key value` or `--key=value`, with paths such as `model.hidden_size=64` and\n"
        "`datasets[0].path=train.jsonl`. A key without a value keeps its default. Unknown keys, keys given twice and\n"
        "contradictions are errors; all of them are listed at once. What is given without effect is named in one "
        "line.\n\n"
        "This page is generated from the table of keys (`train/config/keys.cpp`).\n";
    const auto on_section = [&](const std::string& title) {
        page += fmt::format("\n## {}\n\n| Key | Default | Meaning |\n|---|---|---|\n", title);
    };
    const auto on_key = [&](const KeyText& key) {
        page += fmt::format("| `{}` | {} | {} ({}) |\n", key.name, key.default_text, key.doc, key.what);
    };
    visit_reference(on_section, on_key);
    page +=
        "\n## Keys of TRL, Axolotl and LLaMA-Factory\n\n"
        "Aliases stand in the tables above. Of the other keys of these trainers, what changes nothing is named in one\n"
        "line, as are unknown keys that are empty or off. A key that is not given has the default of this page: TRL "
        "trains\n"
        "on whole chats unless `assistant_only_loss` is true, here only answers are trained on.\n\n| Key | Here "
        "|\n|---|---|\n";
    for (const PortedKey& key : ported_keys()) page += fmt::format("| {} | {} |\n", key.names, key.becomes);
    return page;
}

std::string config_help() {
    std::string text;
    const auto on_section = [&](const std::string& title) { text += '\n' + title + ":\n"; };
    const auto on_key = [&](const KeyText& key) {
        const std::string default_text = key.default_text.empty() ? "" : " [" + key.default_text + "]";
        text += fmt::format("  {}{}\n      {} ({})\n", key.name, default_text, key.doc, key.what);
    };
    visit_reference(on_section, on_key);
    return text;
}

std::optional<jinja::Clock> chat_template_clock(const Config& c) {
    int year = 0, month = 0, day = 0, end = 0;
    if (std::sscanf(c.chat_template_date.c_str(), "%4d-%2d-%2d%n", &year, &month, &day, &end) != 3 ||
        static_cast<size_t>(end) != c.chat_template_date.size())
        return std::nullopt;
    const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                           std::chrono::day(static_cast<unsigned>(day))};
    if (month < 1 || day < 1 || !date.ok()) return std::nullopt;
    return jinja::Clock{.year = year, .month = month, .day = day};
}

EncodeOptions encode_options(const Config& c, int64_t vocab_size) {
    return {.allow_spelled_out_markers = c.allow_spelled_out_markers,
            .max_length = c.max_length,
            .train_on_prompt = c.train_on_prompt,
            .roles_to_train = c.roles_to_train,
            .train_on_thinking = c.train_on_thinking,
            .train_on_tool_calls = c.train_on_tool_calls,
            .special_tokens_in_text = c.special_tokens_in_text,
            .train_on_eos = c.train_on_eos,
            .mask_history = c.mask_history,
            .history = c.history,
            .add_bos = c.add_bos,
            .add_eos = c.add_eos,
            .excess_length = c.excess_length,
            .vocab_size = vocab_size,
            .sample_length = c.rows() == RowKind::preferences ? c.packing_length : 0,
            .ranked_pairs = c.ranking_pairs,
            .mask_truncated = c.mask_truncated_completions};
}

RewardSettings reward_settings(const Config& c) {
    const bool rloo = c.policy_loss == PolicyLoss::rloo;
    RewardSettings settings = {{.scale = rloo ? AdvantageScale::leave_one_out : c.scale_rewards,
                                .aggregation = c.multi_objective_aggregation,
                                .whole_set = c.normalize_advantages ? WholeSet::normalized : WholeSet::as_it_is},
                               c.reward_weights};
    if (c.reward_clip_range.size() == 2) {
        settings.advantages.clip_min = c.reward_clip_range[0];
        settings.advantages.clip_max = c.reward_clip_range[1];
    }
    return settings;
}

PackSettings train_packing(const Config& c) {
    return {.packing_length = c.packing_length,
            .strategy = c.packing_strategy,
            .window = c.packing_window,
            .seed = static_cast<uint64_t>(c.data_seed),
            // Stages over answers have tables of all terms on the device.
            .most_represented = c.rows() == RowKind::texts ? 64 : 8};
}

PackSettings eval_packing(const Config& c) {
    PackSettings settings = train_packing(c);
    settings.shuffle = false;
    settings.strategy = c.eval_packing ? PackStrategy::bfd : PackStrategy::none;
    return settings;
}

AdamWSettings adamw_settings(const Config& c) {
    return {c.adam_beta1, c.adam_beta2, c.adam_epsilon, c.weight_decay};
}

std::optional<LoraSettings> lora_settings(const Config& c) {
    if (c.finetuning_type != Finetuning::lora) return std::nullopt;
    return LoraSettings{.rank = c.lora_rank,
                        .alpha = c.lora_alpha,
                        .dropout = c.lora_dropout,
                        .rslora = c.use_rslora,
                        .targets = c.lora_target,
                        .head = !c.modules_to_save.empty()};
}

std::optional<WeightCode> base_code(const Config& c) {
    if (c.base_quantization == BaseQuantization::none) return std::nullopt;
    return c.base_quantization == BaseQuantization::nf4 ? WeightCode::nf4 : WeightCode::fp8;
}

TokenAdditions token_additions(const Config& c) {
    return {.roles = c.special_tokens, .special = c.add_special_tokens, .plain = c.add_tokens};
}

std::optional<FreezeSettings> freeze_settings(const Config& c) {
    if (c.finetuning_type != Finetuning::freeze) return std::nullopt;
    return FreezeSettings{.layers = c.freeze_trainable_layers,
                          .modules = c.freeze_trainable_modules,
                          .extra = c.freeze_extra_modules,
                          .patterns = {c.unfrozen_parameters.begin(), c.unfrozen_parameters.end()}};
}

LrSchedule lr_schedule(const Config& c, int64_t total_steps) {
    const int64_t warmup = c.warmup_steps > 0 ? c.warmup_steps : steps_of_share(c.warmup_ratio, total_steps);
    const int64_t decay = c.wsd_decay_steps > 0 ? c.wsd_decay_steps : steps_of_share(c.wsd_decay_ratio, total_steps);
    if (const int64_t given = c.warmup_steps + c.wsd_decay_steps; given > total_steps)
        fail(Exit::config, "warmup_steps {} + wsd_decay_steps {} is more than the {} step{} of the run", c.warmup_steps,
             c.wsd_decay_steps, total_steps, total_steps == 1 ? "" : "s");
    return {.type = c.lr_scheduler_type,
            .peak = c.learning_rate,
            .warmup_steps = warmup,
            .total_steps = total_steps,
            .min_lr_rate = c.min_lr > 0 ? c.min_lr / c.learning_rate : c.min_lr_rate,
            .decay_steps = std::min(decay, std::max<int64_t>(total_steps - warmup, 0)),
            .decay_type = c.wsd_decay_type,
            .cycles = c.lr_cycles,
            .power = c.lr_power,
            .timescale = c.lr_timescale > 0 ? c.lr_timescale
                         : warmup > 0       ? warmup
                                            : 10'000};
}

}  // namespace colonnade
