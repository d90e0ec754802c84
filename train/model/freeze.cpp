#include "train/model/freeze.h"

#include <functional>
#include <regex>

namespace colonnade {
namespace {

/// A part of the settings that has to match something.
struct Choice {
    std::string key, text;
    std::function<bool(const Parameter&)> matches;
};

/// "self_attn.q_proj" for "model.layers.0.self_attn.q_proj.weight", "embed_tokens" for "model.embed_tokens.weight".
std::string module_of(const Parameter& p) {
    const std::string path = p.name.substr(0, p.name.rfind('.'));
    const std::string block = fmt::format("model.layers.{}.", p.layer);
    return path.substr(p.in_block() ? block.size() : path.rfind('.') + 1);
}

bool is_within(const std::string& module, const std::string& of) {
    return module == of || module.starts_with(of + '.');
}

std::regex compile(const std::string& pattern) {
    try {
        return std::regex(pattern);
    } catch (const std::regex_error& e) {
        fail(Exit::config, "unfrozen_parameters '{}': not a regular expression: {}", pattern, e.what());
    }
}

std::vector<Choice> choices_of(const ModelConfig& config, const FreezeSettings& s) {
    std::vector<Choice> choices;
    for (const std::string& pattern : s.patterns)
        choices.push_back({"unfrozen_parameters", pattern, [regex = compile(pattern)](const Parameter& p) {
                               return std::regex_search(p.name, regex, std::regex_constants::match_continuous);
                           }});
    const int64_t blocks = config.num_hidden_layers, count = std::abs(s.layers);
    if (count > blocks) fail(Exit::config, "freeze_trainable_layers {}: the model has {} layers", s.layers, blocks);
    const int64_t first = s.layers > 0 ? blocks - count : 0;
    for (const std::string& module : s.modules)
        if (count > 0)
            choices.push_back({"freeze_trainable_modules", module, [=](const Parameter& p) {
                                   const bool in_layers = p.in_block() && p.layer >= first && p.layer < first + count;
                                   return in_layers && (module == "all" || is_within(module_of(p), module));
                               }});
    for (const std::string& module : s.extra)
        choices.push_back({"freeze_extra_modules", module,
                           [=](const Parameter& p) { return !p.in_block() && module_of(p) == module; }});
    return choices;
}

}  // namespace

SplitParameters split_parameters(const ModelConfig& config, const FreezeSettings& settings) {
    const ParameterList all(config);
    const std::vector<Choice> choices = choices_of(config, settings);
    std::vector<bool> used(choices.size());
    SplitParameters split;
    const Parameter* before = nullptr;
    bool trained_before = false;
    for (const Parameter& p : all.all()) {
        bool trained = p.role == Role::score_head;
        for (size_t i = 0; i < choices.size(); ++i)
            if (choices[i].matches(p)) trained = used[i] = true;
        const bool neighbours =
            before && before->layer == p.layer && entry_of(before->role).view == entry_of(p.role).view;
        if (neighbours && trained != trained_before)
            fail(Exit::config, "{} and {} are one matrix here: train both or freeze both", before->name, p.name);
        (trained ? split.trained : split.frozen).append(p);
        before = &p;
        trained_before = trained;
    }
    for (size_t i = 0; i < choices.size(); ++i)
        if (!used[i])
            fail(Exit::config, "{} '{}' matches no parameter of the model{}", choices[i].key, choices[i].text,
                 choices[i].text == "lm_head" && config.tie_word_embeddings
                     ? ": its head is tied to the embedding, embed_tokens"
                     : "");
    split.trained.align();
    split.frozen.align();
    return split;
}

}  // namespace colonnade
