#include "train/run/model_card.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "engine/device/human_units.h"
#include "engine/device/version.h"
#include "engine/io/files.h"
#include "engine/io/own_file.h"
#include "train/config/spellings.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// The mark of our own cards.
constexpr std::string_view mark =
    "# Written by Colonnade at the end of a run, which replaces it. To keep your own, remove "
    "this line.";
constexpr size_t readme_bytes = 1 << 20;

/// "org/name" of what came from a hub.
std::string name_on_hub(const Config& c, const std::string& path) {
    const auto found = c.hub_names.find(path);
    return found == c.hub_names.end() ? "" : found->second.substr(0, found->second.find('@'));
}

/// Its name on the hub, or its file name.
std::string name_to_print(const Config& c, const std::string& path) {
    const std::string name = name_on_hub(c, path);
    if (!name.empty()) return name;
    const fs::path file = fs::path(path).lexically_normal();
    return file.has_filename() ? file.filename() : file.parent_path().filename();
}

std::string base_text(const Config& c) {
    if (c.model_name_or_path.empty()) return "random weights";
    const std::string name = name_on_hub(c, c.model_name_or_path);
    if (name.empty()) return name_to_print(c, c.model_name_or_path);
    return fmt::format("[{0}](https://huggingface.co/{0})", name);
}

std::string front_matter(const Config& c, CardOf kind) {
    std::string text = fmt::format("---\n{}\n", mark);
    if (const std::string base = name_on_hub(c, c.model_name_or_path); !base.empty())
        text += fmt::format("base_model: {}\nbase_model_relation: {}\n", base,
                            kind == CardOf::adapters ? "adapter" : "finetune");
    std::string sets;
    for (const DatasetSpec& set : c.datasets)
        if (const std::string name = name_on_hub(c, set.path); !name.empty()) sets += fmt::format("- {}\n", name);
    if (!sets.empty()) text += "datasets:\n" + sets;
    if (!c.model_name_or_path.empty()) text += license_lines(c.model_name_or_path);
    text += fmt::format("library_name: {}\n", kind == CardOf::adapters ? "peft" : "transformers");
    text += fmt::format("pipeline_tag: {}\ntags:\n- colonnade\n- {}\n",
                        c.stage == Stage::rm ? "text-classification" : "text-generation", spell(c.stage));
    if (c.finetuning_type == Finetuning::lora) text += "- lora\n";
    return text + "---\n";
}

std::string usage(const Config& c, CardOf kind) {
    const std::string model = c.stage == Stage::rm ? "AutoModelForSequenceClassification" : "AutoModelForCausalLM";
    const bool peft = kind == CardOf::adapters;
    const std::string loader =
        peft ? (c.stage == Stage::rm ? "AutoPeftModelForSequenceClassification" : "AutoPeftModelForCausalLM") : model;
    return fmt::format(
        "```python\nfrom {} import {}\nfrom transformers import AutoTokenizer\n\n"
        "model = {}.from_pretrained(\"PATH_OR_NAME\")\n"
        "tokenizer = AutoTokenizer.from_pretrained(\"PATH_OR_NAME\")\n```\n",
        peft ? "peft" : "transformers", loader, loader);
}

std::string row(const std::string& what, const std::string& value) {
    return fmt::format("| {} | {} |\n", what, value);
}

std::string training_table(const Config& c, const TrainingFacts& f) {
    std::string text = "| | |\n|---|---|\n";
    text += row("stage", spell(c.stage));
    text += row("start", base_text(c));
    std::string sets;
    for (const DatasetSpec& set : c.datasets)
        sets += fmt::format("{}`{}`", sets.empty() ? "" : ", ", name_to_print(c, set.path));
    text += row("data", sets);
    text += row("trained parameters", human_count(static_cast<double>(f.parameters)));
    if (c.finetuning_type == Finetuning::lora)
        text += row("LoRA", fmt::format("rank {}, alpha {}", c.lora_rank, c.lora_alpha));
    text += row("steps", f.step == f.last_step ? fmt::format("{}", f.step)
                                               : fmt::format("{}, the best of {}", f.step, f.last_step));
    text += row("seen in the run", fmt::format("{} samples, {} tokens", f.samples, f.tokens));
    text += row("step", fmt::format("{} packed rows of {} tokens", f.packs_per_step, c.packing_length));
    text += row("learning rate", fmt::format("{}, {}", c.learning_rate, spell(c.lr_scheduler_type)));
    text += row("weight decay", fmt::format("{}", c.weight_decay));
    text += row("seed", fmt::format("{}", c.seed));
    text += row("machine", f.ranks > 1 ? fmt::format("{} x {}", f.ranks, f.device) : f.device);
    return text;
}

/// The value of a line of the front matter, if it is the plain word, path or address that a licence is.
std::string plain_value(std::string value) {
    const auto is_space_or_quote = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '"' || c == '\''; };
    while (!value.empty() && is_space_or_quote(value.front())) value.erase(0, 1);
    while (!value.empty() && is_space_or_quote(value.back())) value.pop_back();
    const auto plain = [](unsigned char c) {
        return std::isalnum(c) || std::string_view("-_.:/+").find(static_cast<char>(c)) != std::string_view::npos;
    };
    return value.size() <= 200 && std::ranges::all_of(value, plain) ? value : "";
}

}  // namespace

std::string license_lines(const std::string& folder) {
    const std::string path = folder + "/README.md";
    std::error_code error;
    if (!fs::is_regular_file(path, error)) return "";
    std::istringstream lines;
    try {
        lines.str(read_file(own_file(folder, path), readme_bytes));
    } catch (const Error&) {  // too large, or a link to elsewhere
        return "";
    }
    std::string line, text;
    if (!std::getline(lines, line) || !line.starts_with("---")) return "";
    while (std::getline(lines, line) && !line.starts_with("---"))
        for (const std::string key : {"license: ", "license_name: ", "license_link: "})
            if (line.starts_with(key))
                if (const std::string value = plain_value(line.substr(key.size())); !value.empty())
                    text += key + value + "\n";
    return text;
}

std::string model_card(const Config& c, const TrainingFacts& f, CardOf kind) {
    const std::string name = c.run_name.empty() ? name_to_print(c, c.output_dir) : c.run_name;
    std::string text = front_matter(c, kind);
    text += fmt::format("\n# {}\n\n{} trained from {} with Colonnade {}.\n\n", name,
                        kind == CardOf::adapters ? "LoRA adapters" : "A model", base_text(c), COLONNADE_VERSION);
    text += usage(c, kind) + "\n## Training\n\n" + training_table(c, f);
    if (f.metrics.empty()) return text;
    text += "\n## Evaluation\n\n| metric | value |\n|---|--:|\n";
    for (const auto& [metric, value] : f.metrics)
        text += row(metric,
                    std::visit([](auto number) { return fmt::format("{:.6g}", static_cast<double>(number)); }, value));
    return text;
}

bool write_model_card(const std::string& folder, const std::string& card) {
    const std::string path = folder + "/README.md";
    std::error_code error;
    if (fs::exists(fs::symlink_status(path, error))) {
        if (!fs::is_regular_file(fs::symlink_status(path, error))) return false;
        InputFile file(path);
        std::string head(1024, '\0');
        head.resize(file.read(head.data(), head.size()));
        if (head.find(mark) == head.npos) return false;
    }
    write_file_atomically(path, card);
    return true;
}

}  // namespace colonnade
