// Other trainers' keys about the stage, distillation, the model's revision and adapters.

#include <set>

#include "train/config/porter.h"
#include "train/config/values.h"

namespace colonnade {

void port_rl(ConfigNode& entry, Porter& porter) {
    static const std::set<std::string> losses = {"ipo", "orpo", "simpo", "hinge"};
    if (entry.text == "dpo" || entry.text == "kto" || entry.text == "grpo")
        return porter.set("stage", entry.text, entry);
    if (!losses.contains(entry.text))
        return porter.refuse(entry, "stages here are pt, sft, dpo, rm, kto, grpo and distill");
    porter.set("stage", "dpo", entry);
    porter.set("loss_type", entry.text, entry);
}

void port_kd_trainer(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("stage", "distill", entry);
}

/// Axolotl bends the teacher's probabilities to another temperature, without those of the tokens that it has not.
void port_kd_temperature(ConfigNode& entry, Porter& porter) {
    double temperature = 0;
    if (ValueFormat<double>::read(entry, {}, temperature) && temperature == 1) return porter.idle(entry, "the default");
    porter.refuse(entry,
                  "the teacher's log-probabilities are taken as they are: compute them at this temperature, and give "
                  "temperature");
}

void port_model_revision(ConfigNode& entry, Porter& porter) {
    if (is_off(entry) || entry.text == "main") return porter.idle(entry);
    const ConfigNode* const model = porter.find("model_name_or_path");
    if (!model) return porter.refuse(entry, "give the revision behind the model's name: org/name@" + entry.text);
    porter.replace("model_name_or_path", Porter::scalar(model->text + "@" + entry.text, *model), entry);
}

void port_reward_model(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("stage", "rm", entry);
}

void port_use_peft(ConfigNode& entry, Porter& porter) {
    porter.set("finetuning_type", is_off(entry) ? "full" : "lora", entry);
}

void port_adapter(ConfigNode& entry, Porter& porter) {
    if (entry.text != "qlora") return;
    entry.text = "lora";
    porter.set("base_quantization", "nf4", entry);
}

void port_4bit(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("base_quantization", "nf4", entry);
}

void port_fp8(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("compute", "fp8", entry);
}

void port_quantization_bit(ConfigNode& entry, Porter& porter) {
    if (!is_off(entry) && entry.text != "4") return porter.refuse(entry, "use 4, or base_quantization: fp8");
    port_4bit(entry, porter);
}

void port_quantization_kind(ConfigNode& entry, Porter& porter) {
    static const std::set<std::string> same = {"nf4", "bnb", "bitsandbytes"};
    if (is_off(entry) || same.contains(entry.text)) return porter.idle(entry);
    porter.refuse(entry, "4 bits are bitsandbytes' nf4 here");
}

void port_lora_target_linear(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("lora_target", "all", entry);
}

}  // namespace colonnade
