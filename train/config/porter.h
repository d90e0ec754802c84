#pragma once
// Porter: what the rewriting of another trainer's config (train/config/ported_keys.h) does to the tree.

#include <string>
#include <vector>

#include "train/config/keys.h"

namespace colonnade {

/// False, 0, none or empty: whatever such a key switches on is off.
bool is_off(const ConfigNode& node);
/// Unquoted true, in any of YAML 1.1's spellings.
bool is_true(const ConfigNode& node);

class Porter {
  public:
    Porter(ConfigNode& root, Reading& reading) : root_(root), reading_(reading) {}

    /// The value given under a key of ours, or one of its aliases; null if there is none.
    const ConfigNode* find(const std::string& key) const;
    /// Gives `key` the value that `from` means. A value of the command line wins; two that differ are a problem.
    void set(const std::string& key, ConfigNode value, const ConfigNode& from);
    void set(const std::string& key, const std::string& text, const ConfigNode& from);
    /// The same, whatever the key had.
    void replace(const std::string& key, ConfigNode value, const ConfigNode& from);
    /// `from` has no effect here; `why` may be empty.
    void idle(const ConfigNode& from, const std::string& why = "");
    void note(const ConfigNode& from, const std::string& text);
    void refuse(const ConfigNode& from, const std::string& way_out);

    /// All idle keys in one line; empty if there are none.
    std::string idle_keys() const;

    static ConfigNode scalar(const std::string& text, const ConfigNode& from);
    static ConfigNode list(std::vector<ConfigNode> items, const ConfigNode& from);
    static ConfigNode map(std::vector<std::pair<std::string, ConfigNode>> entries, const ConfigNode& from);

  private:
    ConfigNode& root_;
    Reading& reading_;
    std::vector<std::string> idle_;
};

// --- Data sets (train/config/ported_datasets.cpp) ---

/// An item of `datasets` as Axolotl and TRL write it, in place. Its keys for the whole run move to the root.
void port_dataset(ConfigNode& item, Porter& porter);
/// LLaMA-Factory's `dataset` and `eval_dataset`: names of files, or of entries of dataset_info.json in `folder`.
void port_named_datasets(const ConfigNode& names, const std::string& folder, const std::string& key, Porter& porter);

// --- Stage, distillation, adapters (train/config/ported_stage.cpp) ---

void port_rl(ConfigNode& entry, Porter& porter);
void port_kd_trainer(ConfigNode& entry, Porter& porter);
void port_kd_temperature(ConfigNode& entry, Porter& porter);
void port_model_revision(ConfigNode& entry, Porter& porter);
void port_reward_model(ConfigNode& entry, Porter& porter);
void port_use_peft(ConfigNode& entry, Porter& porter);
void port_adapter(ConfigNode& entry, Porter& porter);
void port_4bit(ConfigNode& entry, Porter& porter);
void port_fp8(ConfigNode& entry, Porter& porter);
void port_quantization_bit(ConfigNode& entry, Porter& porter);
void port_quantization_kind(ConfigNode& entry, Porter& porter);
void port_lora_target_linear(ConfigNode& entry, Porter& porter);

// --- What is learned and how (train/config/ported_learning.cpp) ---

void port_optimizer(ConfigNode& entry, Porter& porter);
void port_checkpointing(ConfigNode& entry, Porter& porter);
void port_checkpointing_arguments(ConfigNode& entry, Porter& porter);
void port_offloading(ConfigNode& entry, Porter& porter);
void port_unsloth_checkpointing(ConfigNode& entry, Porter& porter);
void port_use_muon(ConfigNode& entry, Porter& porter);
void port_unfrozen(ConfigNode& entry, Porter& porter);
void port_noise(ConfigNode& entry, Porter& porter);
void port_special_tokens(ConfigNode& entry, Porter& porter);
void port_eos_token(ConfigNode& entry, Porter& porter);
void port_multiple_of_32(ConfigNode& entry, Porter& porter);

}  // namespace colonnade
