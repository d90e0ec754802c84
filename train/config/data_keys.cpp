#include "train/config/data_keys.h"

#include "data/rows/kept_answers.h"

namespace colonnade {
namespace {

Key<Config> datasets_key(const char* name, std::vector<DatasetSpec> Config::*field, const char* doc) {
    Key<Config> key{.name = name, .doc = doc, .what = "a list of maps"};
    key.read = [=](const ConfigNode& node, const std::string& label, Config& config, Reading& reading) {
        if (node.kind != ConfigNode::Kind::sequence) {
            reading.problems.add(node.where, "{}: expected a list such as [{{path: train.jsonl}}], found {}", label,
                                 node.found());
            reading.unreadable.insert(label);
            return;
        }
        for (const ConfigNode& item : node.children) {
            const std::string item_label = fmt::format("{}[{}]", label, (config.*field).size());
            DatasetSpec& dataset = (config.*field).emplace_back();
            if (item.kind != ConfigNode::Kind::map) {
                reading.problems.add(item.where, "{}: expected a map such as {{path: train.jsonl}}, found {}",
                                     item_label, item.found());
                continue;
            }
            read_keys(dataset_keys(), item, item_label + '.', dataset, reading);
            if (!reading.given.contains(item_label + ".path"))
                reading.problems.add(item.where, "{}: path is missing", item_label);
        }
    };
    key.write = [=](YAML::Emitter& out, const Config& config) {
        if ((config.*field).empty()) out << YAML::Flow;
        out << YAML::BeginSeq;
        for (const DatasetSpec& dataset : config.*field) write_keys(dataset_keys(), out, dataset);
        out << YAML::EndSeq;
    };
    return key;
}

/// A key whose text, unless it is empty, has one of some forms.
template <typename Parse>
Key<DatasetSpec> in_forms(Key<DatasetSpec> key, std::string DatasetSpec::*field, const char* forms, Parse parse) {
    key.read = [=, read = key.read](const ConfigNode& node, const std::string& label, DatasetSpec& dataset,
                                    Reading& reading) {
        read(node, label, dataset, reading);
        if (!(dataset.*field).empty() && !parse(dataset.*field))
            reading.problems.add(node.where, "{}: expected {}, found {}", label, forms, node.found());
    };
    return key;
}

/// Other trainers' word for the model's own template.
Limits chat_templates() {
    return {.also_spelled = {{"tokenizer_default", "auto"}, {"chat_template", "auto"}}};
}

}  // namespace

std::vector<Key<DatasetSpec>> dataset_keys() {
    using D = DatasetSpec;
    return {
        key("path", &D::path,
            "A data file (JSON lines, JSON or Parquet; the text forms also as .gz or .zst), a folder of them, a glob "
            "such as data/*.jsonl, or the name of a data set on a hub: org/name, org/name/folder.")
            .default_is("required"),
        key("type", &D::type, "Format of its rows; auto detects it from the first rows and prints it.",
            one_of({"auto", "messages", "prompt_completion", "alpaca", "sharegpt", "text", "tokens", "scored",
                    "preference", "turns", "steps", "ranked", "rollouts", "prompt_tokens"})),
        key("columns", &D::columns,
            "Maps the expected field names to those in the file, for example {prompt: question}."),
        key("ignore_columns", &D::ignore_columns,
            "Keys of the file that are read as if they were not there, for example [label]."),
        in_forms(key("split", &D::split,
                     "Part of the data: the files of a folder that belong to a split, and which of their rows, as in "
                     "train, train[:1000] or train[10%:].")
                     .default_is("all rows; of a folder with several splits train, in eval_datasets an error"),
                 &D::split, split_forms, parse_split),
        key("max_samples", &D::max_samples, "Read only the first rows, at most this many; 0: all.", from_to(0, 1e15)),
        key("weight", &D::weight,
            "How often a sample is taken in an epoch: 2 takes each twice, 0.5 a fixed half that data_seed draws.",
            {.low = 0, .high = 1000, .low_excluded = true}),
        key("chat_template", &D::chat_template, "Template that renders its chats.", chat_templates())
            .default_is("chat_template"),
        in_forms(key("keep", &D::keep,
                     "Which answers of scored rows are learned: best, the one with the highest score, or above and a "
                     "number, every answer with a greater score.")
                     .default_is("none"),
                 &D::keep, keep_forms, parse_keep),
    };
}

Section data_section() {
    using C = Config;
    return {"Data",
            {
                datasets_key("datasets", &C::datasets, "Data to train on.").default_is("required"),
                datasets_key("eval_datasets", &C::eval_datasets, "Data to evaluate on.")
                    .also({"test_datasets"})
                    .only_how_to_run(),
                key("val_size", &C::val_size,
                    "Samples to split off the training data for evaluation: a share if below 1, otherwise a count.",
                    at_least(0))
                    .also({"val_set_size"}),
                key("max_length", &C::max_length,
                    "Longest sample, in tokens. For preferences: the longest prompt with any one of its answers.",
                    from_to(2, 1 << 24))
                    .also({"sequence_len", "cutoff_len", "max_seq_len", "max_seq_length"}),
                key("excess_length", &C::excess_length,
                    "Policy for longer samples, and for preferences whose answers together exceed packing_length. "
                    "truncate keeps the start. Each case is counted and reported.")
                    .also({"excess_length_strategy"})
                    .default_is("drop; truncate in stages kto and grpo"),
                key("prepared_path", &C::prepared_path,
                    "Folder of the tokenised data, which is reused as long as its inputs stay the same.")
                    .also({"dataset_prepared_path", "tokenized_path"})
                    .default_is("prepared in output_dir")
                    .only_how_to_run(),
                key("dataset_num_proc", &C::dataset_num_proc, "Threads that tokenise.", from_to(0, 4096))
                    .also({"preprocessing_num_workers", "dataset_processes"})
                    .default_is("threads")
                    .per_machine(),
            },
            describe_keys(dataset_keys(), "datasets[].")};
}

Section labels_section() {
    using C = Config;
    return {"Labels",
            {
                key("chat_template", &C::chat_template,
                    "Template that renders chats. auto: the model's own; else a built-in one (plain, chatml, llama2, "
                    "llama3, mistral, zephyr, gemma), the name of one of the model's, a Jinja file, or Jinja text.",
                    chat_templates())
                    .also({"chat_template_jinja", "chat_template_path"}),
                key("chat_template_kwargs", &C::chat_template_kwargs,
                    "Variables of the template, such as {enable_thinking: false}. Those of a row come first."),
                key("chat_template_date", &C::chat_template_date,
                    "The date that templates see, so that tokens do not depend on the day."),
                key("allow_spelled_out_markers", &C::allow_spelled_out_markers,
                    "Let a template write markers such as <|im_end|> that the tokenizer does not know as one token."),
                key("special_tokens_in_text", &C::special_tokens_in_text,
                    "What a special token becomes that a text spells: text, or the token. Such rows are counted."),
                key("train_on_prompt", &C::train_on_prompt, "Train on every token, prompts included.")
                    .also({"train_on_inputs", "train_on_input"}),
                key("roles_to_train", &C::roles_to_train, "Roles whose turns are trained on.",
                    one_of({"system", "user", "assistant", "tool"})),
                key("train_on_eos", &C::train_on_eos,
                    "End tokens to train on: those of trained turns, of all turns, of the last turn, or none."),
                key("mask_history", &C::mask_history, "Train only on the last trained turn of a chat.")
                    .also({"train_on_last", "last_turn_only"}),
                key("history", &C::history,
                    "What an answer of a chat sees of the answers before it. per_turn: what it would see when it is "
                    "generated, one sequence per learned turn. as_rendered: the chat rendered once. auto: per_turn for "
                    "each row whose template rewrites earlier turns, such as one that drops their reasoning."),
                key("train_on_thinking", &C::train_on_thinking, "Train on the reasoning of trained answers."),
                key("train_on_tool_calls", &C::train_on_tool_calls, "Train on the tool calls of trained answers."),
                key("add_bos", &C::add_bos,
                    "Begin plain prompts and texts as the tokenizer begins a document: many put a begin token there."),
                key("add_eos", &C::add_eos, "Put an end token after plain completions and texts."),
            }};
}

}  // namespace colonnade
