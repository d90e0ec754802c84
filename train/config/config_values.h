#pragma once
// How a value of each type that occurs in Config is read from the tree, described and written as YAML. Scalars are
// strict: the whole text must be the value, quoted text is never a number, only true and false are booleans, NaN and
// infinity are not numbers.

#include <yaml-cpp/emitter.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/config/config_tree.h"

namespace colonnade {

/// What a value may be, beyond its type.
struct Limits {
    double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
    bool low_excluded = false, high_excluded = false;
    std::vector<std::string> choices = {};                 ///< for text; empty: any
    std::map<std::string, std::string> also_spelled = {};  ///< for text: {"true", "auto"}

    bool hold(double value) const {
        return (low_excluded ? value > low : value >= low) && (high_excluded ? value < high : value <= high);
    }
    bool hold(const std::string& text) const {
        return choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end();
    }
    /// " >= 0 and < 1"
    std::string range() const {
        std::string text;
        if (std::isfinite(low)) text += fmt::format(" {} {}", low_excluded ? ">" : ">=", low);
        if (std::isfinite(high))
            text += fmt::format("{} {} {}", text.empty() ? "" : " and", high_excluded ? "<" : "<=", high);
        return text;
    }
};
inline Limits at_least(double low) {
    return {.low = low};
}
inline Limits above(double low) {
    return {.low = low, .low_excluded = true};
}
inline Limits from_to(double low, double high) {
    return {.low = low, .high = high};
}
inline Limits from_to_below(double low, double high) {
    return {.low = low, .high = high, .high_excluded = true};
}
inline Limits one_of(std::vector<std::string> choices) {
    return {.choices = std::move(choices)};
}

/// What reading gathers beside the values.
struct Reading {
    Problems problems;
    std::vector<std::string> notices;
    std::map<std::string, std::string> given;  ///< keys that have a value ("model.head_dim") and their places
    std::set<std::string> unreadable;          ///< keys whose value is not what it should be
};

/// Names of an enum's values. Where a value has several, the first is the one that is written.
template <typename E>
struct Spelling {
    const char* name;
    E value;
};
template <typename E>
inline constexpr std::array<Spelling<E>, 0> spellings{};
template <>
inline constexpr auto spellings<Stage> =
    std::to_array<Spelling<Stage>>({{"pt", Stage::pt}, {"sft", Stage::sft}, {"dpo", Stage::dpo}, {"rm", Stage::rm}});
template <>
inline constexpr auto spellings<DeviceChoice> = std::to_array<Spelling<DeviceChoice>>(
    {{"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}});
template <>
inline constexpr auto spellings<Switch> =
    std::to_array<Spelling<Switch>>({{"auto", Switch::automatic}, {"true", Switch::on}, {"false", Switch::off}});
template <>
inline constexpr auto spellings<Recompute> = std::to_array<Spelling<Recompute>>({{"none", Recompute::none},
                                                                                 {"selective", Recompute::selective},
                                                                                 {"block", Recompute::block},
                                                                                 {"false", Recompute::none},
                                                                                 {"true", Recompute::block}});
template <>
inline constexpr auto spellings<DType> = std::to_array<Spelling<DType>>(
    {{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"fp32", DType::f32}, {"bf16", DType::bf16}});
template <>
inline constexpr auto spellings<When> =
    std::to_array<Spelling<When>>({{"no", When::no}, {"steps", When::steps}, {"epoch", When::epoch}});
template <>
inline constexpr auto spellings<Finetuning> = std::to_array<Spelling<Finetuning>>({{"full", Finetuning::full},
                                                                                   {"lora", Finetuning::lora}});
template <>
inline constexpr auto spellings<Optimizer> = std::to_array<Spelling<Optimizer>>(
    {{"adamw", Optimizer::adamw}, {"adamw_torch", Optimizer::adamw}, {"adamw_torch_fused", Optimizer::adamw}});
template <>
inline constexpr auto spellings<Report> = std::to_array<Spelling<Report>>({{"jsonl", Report::jsonl},
                                                                           {"tensorboard", Report::tensorboard}});
template <>
inline constexpr auto spellings<Architecture> = std::to_array<Spelling<Architecture>>({{"llama", Architecture::llama},
                                                                                       {"mistral",
                                                                                        Architecture::mistral},
                                                                                       {"qwen2", Architecture::qwen2},
                                                                                       {"qwen3", Architecture::qwen3}});
template <>
inline constexpr auto spellings<ExcessLength> = std::to_array<Spelling<ExcessLength>>({{"drop", ExcessLength::drop},
                                                                                       {"truncate",
                                                                                        ExcessLength::truncate},
                                                                                       {"error", ExcessLength::error},
                                                                                       {"raise", ExcessLength::error}});
template <>
inline constexpr auto spellings<TrainOnEos> = std::to_array<Spelling<TrainOnEos>>(
    {{"turn", TrainOnEos::turn}, {"all", TrainOnEos::all}, {"last", TrainOnEos::last}, {"none", TrainOnEos::none}});
template <>
inline constexpr auto spellings<PackStrategy> = std::to_array<Spelling<PackStrategy>>(
    {{"bfd", PackStrategy::bfd}, {"sequential", PackStrategy::sequential}, {"none", PackStrategy::none}});
template <>
inline constexpr auto spellings<LrScheduler> =
    std::to_array<Spelling<LrScheduler>>({{"constant", LrScheduler::constant},
                                          {"constant_with_warmup", LrScheduler::constant_with_warmup},
                                          {"linear", LrScheduler::linear},
                                          {"cosine", LrScheduler::cosine},
                                          {"cosine_with_min_lr", LrScheduler::cosine_with_min_lr},
                                          {"wsd", LrScheduler::wsd},
                                          {"warmup_stable_decay", LrScheduler::wsd}});
template <>
inline constexpr auto spellings<LrDecay> = std::to_array<Spelling<LrDecay>>({{"linear", LrDecay::linear},
                                                                             {"cosine", LrDecay::cosine},
                                                                             {"1-sqrt", LrDecay::one_minus_sqrt}});

template <>
inline constexpr auto spellings<PreferenceLoss> =
    std::to_array<Spelling<PreferenceLoss>>({{"sigmoid", PreferenceLoss::sigmoid},
                                             {"robust", PreferenceLoss::robust},
                                             {"hinge", PreferenceLoss::hinge},
                                             {"ipo", PreferenceLoss::ipo},
                                             {"sigmoid_norm", PreferenceLoss::sigmoid_norm},
                                             {"exo_pair", PreferenceLoss::exo_pair},
                                             {"nca_pair", PreferenceLoss::nca_pair},
                                             {"sppo_hard", PreferenceLoss::sppo_hard},
                                             {"apo_zero", PreferenceLoss::apo_zero},
                                             {"apo_down", PreferenceLoss::apo_down},
                                             {"simpo", PreferenceLoss::simpo},
                                             {"orpo", PreferenceLoss::orpo},
                                             {"sft", PreferenceLoss::sft},
                                             {"dpo_norm", PreferenceLoss::sigmoid_norm}});
template <>
inline constexpr auto spellings<RankingKind> = std::to_array<Spelling<RankingKind>>(
    {{"pairwise", RankingKind::pairwise}, {"plackett_luce", RankingKind::plackett_luce}});

template <typename E>
const char* spell(E value) {
    return std::find_if(spellings<E>.begin(), spellings<E>.end(), [&](const auto& s) { return s.value == value; })
        ->name;
}
/// The distinct values by their first name: "drop, truncate, error".
template <typename E>
std::string spelled_choices() {
    std::string text;
    for (const auto& s : spellings<E>)
        if (s.name == std::string_view(spell(s.value))) text += (text.empty() ? "" : ", ") + std::string(s.name);
    return text;
}

/// Form<T>: what() a value of the type should be, read() it (false: the node is something else), write() it.
template <typename T>
struct Form {  // enums
    static std::string what(const Limits&) { return "one of " + spelled_choices<T>(); }
    static bool read(const ConfigNode& node, const Limits&, T& value) {
        for (const auto& s : spellings<T>) {
            if (node.kind == ConfigNode::Kind::scalar && node.text == s.name) {
                value = s.value;
                return true;
            }
        }
        return false;
    }
    static void write(YAML::Emitter& out, T value) { out << spell(value); }
};

template <>
struct Form<bool> {
    static std::string what(const Limits&) { return "true or false"; }
    static bool read(const ConfigNode& node, const Limits&, bool& value) {
        value = node.text == "true";
        return node.kind == ConfigNode::Kind::scalar && !node.quoted && (value || node.text == "false");
    }
    static void write(YAML::Emitter& out, bool value) { out << (value ? "true" : "false"); }
};

template <typename T>
requires(std::is_same_v<T, int64_t> || std::is_same_v<T, double>) struct Form<T> {
    static std::string what(const Limits& limits) {
        return (std::is_same_v<T, double> ? "a number" : "an integer") + limits.range();
    }
    static bool read(const ConfigNode& node, const Limits& limits, T& value) {
        if (node.kind != ConfigNode::Kind::scalar || node.quoted) return false;
        const char* end = node.text.data() + node.text.size();
        T number{};
        const auto [stop, error] = std::from_chars(node.text.data(), end, number);
        const auto real = static_cast<double>(number);
        if (error != std::errc() || stop != end || !std::isfinite(real) || !limits.hold(real)) return false;
        value = number;
        return true;
    }
    static void write(YAML::Emitter& out, T value) { out << fmt::format("{}", value); }
};

template <>
struct Form<std::string> {
    static std::string what(const Limits& limits) {
        return limits.choices.empty() ? "text" : fmt::format("one of {}", fmt::join(limits.choices, ", "));
    }
    static bool read(const ConfigNode& node, const Limits& limits, std::string& value) {
        const auto other = limits.also_spelled.find(node.text);
        const std::string& meant = other != limits.also_spelled.end() ? other->second : node.text;
        if (node.kind != ConfigNode::Kind::scalar || !limits.hold(meant)) return false;
        value = meant;
        return true;
    }
    static void write(YAML::Emitter& out, const std::string& value) {
        if (value.empty())
            out << YAML::Null;
        else
            out << value;
    }
};

/// A list, one value without brackets, or several with commas between them; "none" is the empty list.
template <typename T>
struct Form<std::set<T>> {
    static std::string what(const Limits& limits) {
        std::string item = Form<T>::what(limits);
        if (item.starts_with("one of ")) item.erase(0, 7);
        return fmt::format("a list of {}; or none", item);
    }
    static bool read(const ConfigNode& node, const Limits& limits, std::set<T>& values) {
        values.clear();
        if (node.kind == ConfigNode::Kind::scalar && node.text == "none") return true;
        const auto add = [&](const ConfigNode& item) {
            T value;
            const bool fits = Form<T>::read(item, limits, value);
            if (fits) values.insert(value);
            return fits;
        };
        if (node.kind == ConfigNode::Kind::scalar) {
            for (size_t begin = 0, end = 0; end != node.text.npos; begin = end + 1) {
                end = node.text.find(',', begin);
                ConfigNode item = node;
                item.text = node.text.substr(begin, end == node.text.npos ? end : end - begin);
                item.text.erase(0, item.text.find_first_not_of(' '));
                item.text.erase(item.text.find_last_not_of(' ') + 1);
                if (!add(item)) return false;
            }
            return true;
        }
        return node.kind == ConfigNode::Kind::sequence && std::all_of(node.children.begin(), node.children.end(), add);
    }
    static void write(YAML::Emitter& out, const std::set<T>& values) {
        out << YAML::Flow << YAML::BeginSeq;
        for (const T& value : values) Form<T>::write(out, value);
        out << YAML::EndSeq;
    }
};

template <>
struct Form<std::map<std::string, std::string>> {
    static std::string what(const Limits&) { return "a map of names, each given once"; }
    static bool read(const ConfigNode& node, const Limits& limits, std::map<std::string, std::string>& values) {
        if (node.kind != ConfigNode::Kind::map) return false;
        values.clear();
        return std::all_of(node.children.begin(), node.children.end(), [&](const ConfigNode& entry) {
            std::string value;
            return Form<std::string>::read(entry, limits, value) && values.emplace(entry.key, value).second;
        });
    }
    static void write(YAML::Emitter& out, const std::map<std::string, std::string>& values) {
        out << YAML::Flow << YAML::BeginMap;
        for (const auto& [name, value] : values) out << YAML::Key << name << YAML::Value << value;
        out << YAML::EndMap;
    }
};

}  // namespace colonnade
