// Other trainers' keys about optimizers, activations, frozen layers, noise and added tokens.

#include <algorithm>
#include <regex>

#include "train/config/porter.h"

namespace colonnade {

void port_optimizer(ConfigNode& entry, Porter& porter) {
    static const std::map<std::string, std::string> here = {{"paged_adamw", "adamw"},
                                                            {"paged_adamw_32bit", "adamw"},
                                                            {"paged_adamw_8bit", "adamw_8bit"},
                                                            {"ao_adamw_8bit", "adamw_8bit"}};
    if (const auto found = here.find(entry.text); found != here.end()) {
        if (entry.text.starts_with("paged"))
            porter.note(entry, fmt::format("{}: {}, whose moments stay on the device", entry.text, found->second));
        entry.text = found->second;
        return;
    }
    const bool ours = std::ranges::find(spellings<Optim>, entry.text,
                                        [](const auto& s) { return std::string(s.name); }) != spellings<Optim>.end();
    if (!ours && (entry.text.find("8bit") != std::string::npos || entry.text.find("4bit") != std::string::npos))
        porter.refuse(entry, "use adamw_8bit, whose moments take 2.1 bytes per parameter");
}

/// Elsewhere what is offloaded are the inputs of blocks that are recomputed.
static void recompute_blocks(const ConfigNode& from, Porter& porter) {
    if (!porter.find("gradient_checkpointing")) porter.set("gradient_checkpointing", "block", from);
}

/// Axolotl's values offload, offload_disk and, before, unsloth.
void port_checkpointing(ConfigNode& entry, Porter& porter) {
    if (!entry.text.starts_with("offload") && entry.text != "unsloth") return;
    if (entry.text == "offload_disk") porter.note(entry, "offload_disk: to host memory, not to a disk");
    porter.set("offload_activations", "true", entry);
    entry.text = "block";
}

/// transformers' {offload: true}.
void port_checkpointing_arguments(ConfigNode& entry, Porter& porter) {
    const auto offload =
        std::ranges::find_if(entry.children, [](const ConfigNode& item) { return item.key == "offload"; });
    if (offload == entry.children.end() || is_off(*offload)) return porter.idle(entry);
    porter.set("offload_activations", "true", *offload);
}

/// A name of our key, with Axolotl's values legacy, disk and hidden_states beside TRL's true and false.
void port_offloading(ConfigNode& entry, Porter& porter) {
    if (is_off(entry)) return;
    if (entry.text == "disk") porter.note(entry, "disk: to host memory, not to a disk");
    if (entry.text == "disk" || entry.text == "legacy" || entry.text == "hidden_states") entry.text = "true";
    recompute_blocks(entry, porter);
}

/// LLaMA-Factory's name for both.
void port_unsloth_checkpointing(ConfigNode& entry, Porter& porter) {
    if (is_off(entry)) return porter.idle(entry, "off");
    porter.set("offload_activations", "true", entry);
    recompute_blocks(entry, porter);
}

void port_use_muon(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.replace("optim", Porter::scalar("muon", entry), entry);
}

/// Axolotl has no key that says that a part of the model is trained. A range of rows, [0:32000], is not supported.
void port_unfrozen(ConfigNode& entry, Porter& porter) {
    static const std::regex range(R"(\[\d*:\d*\]$)");
    if (is_off(entry)) return;
    const std::vector<ConfigNode> items =
        entry.kind == ConfigNode::Kind::sequence ? entry.children : std::vector<ConfigNode>{entry};
    for (ConfigNode item : items)
        if (std::regex_search(item.text, range)) {
            item.key = entry.key;
            return porter.refuse(item, "a range of rows; parameters are trained whole");
        }
    if (!porter.find("finetuning_type")) porter.set("finetuning_type", "freeze", entry);
}

void port_noise(ConfigNode& entry, Porter& porter) {
    porter.set("neftune_noise_alpha", entry.text, entry);
}

/// additional_special_tokens may be among the roles, and a role may be empty.
void port_special_tokens(ConfigNode& entry, Porter& porter) {
    std::vector<ConfigNode> roles;
    for (ConfigNode& token : entry.children) {
        if (token.key == "additional_special_tokens" || token.key == "extra_special_tokens")
            porter.set("add_special_tokens", token, entry);
        else if (!is_off(token))
            roles.push_back(token);
    }
    entry.children = roles;
    if (roles.empty()) entry.kind = ConfigNode::Kind::null;
}

void port_eos_token(ConfigNode& entry, Porter& porter) {
    porter.set("special_tokens", Porter::map({{"eos_token", Porter::scalar(entry.text, entry)}}, entry), entry);
}

void port_multiple_of_32(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("pad_vocab_to_multiple_of", "32", entry);
}

}  // namespace colonnade
