#pragma once
// How a value of each type that occurs in Config is read from the tree, described and written as YAML. Scalars are strict:
// the whole text must be the value, quoted text is never a number, only true and false are booleans, NaN and infinity are
// no numbers.

#include <yaml-cpp/emitter.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "train/config.h"
#include "train/config_tree.h"

namespace colonnade {

/// What a value may be, beyond its type.
struct Limits {
    double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
    bool low_excluded = false, high_excluded = false;
    std::vector<std::string> choices = {};                  ///< for text; empty: any
    std::map<std::string, std::string> also_spelled = {};  ///< for text: {"false", ""}

    bool hold(double value) const {
        return (low_excluded ? value > low : value >= low) && (high_excluded ? value < high : value <= high);
    }
    bool allow(const std::string& text) const {
        return choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end();
    }
    std::string text() const {
        std::string s;
        if (std::isfinite(low)) s += fmt::format(" {} {}", low_excluded ? ">" : ">=", low);
        if (std::isfinite(high)) s += fmt::format("{} {} {}", s.empty() ? "" : " and", high_excluded ? "<" : "<=", high);
        return s;
    }
};
inline Limits at_least(double low) { return {.low = low}; }
inline Limits above(double low) { return {.low = low, .low_excluded = true}; }
inline Limits from_to(double low, double high) { return {.low = low, .high = high}; }
inline Limits from_to_below(double low, double high) { return {.low = low, .high = high, .high_excluded = true}; }
inline Limits one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }

/// What reading gathers beside the values.
struct Reading {
    Problems problems;
    std::vector<std::string> notices;
    std::map<std::string, std::string> given;  ///< keys with a value in the input, "model.head_dim", and their places
};

/// Names of an enum's values; the first one of a value is the one that is written.
template <typename E>
struct Spelling {
    const char* name;
    E value;
};
inline constexpr Spelling<Stage> stages[] = {{"pt", Stage::pt}, {"sft", Stage::sft}};
inline constexpr Spelling<DeviceChoice> devices[] = {
    {"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}};
inline constexpr Spelling<When> whens[] = {{"no", When::no}, {"steps", When::steps}, {"epoch", When::epoch}};
inline constexpr Spelling<Optimizer> optimizers[] = {
    {"adamw", Optimizer::adamw}, {"adamw_torch", Optimizer::adamw}, {"adamw_torch_fused", Optimizer::adamw}};
inline constexpr Spelling<Report> reports[] = {{"jsonl", Report::jsonl}, {"tensorboard", Report::tensorboard}};
inline constexpr Spelling<Architecture> architectures[] = {{"llama", Architecture::llama},
                                                           {"mistral", Architecture::mistral},
                                                           {"qwen2", Architecture::qwen2},
                                                           {"qwen3", Architecture::qwen3}};
inline constexpr Spelling<ExcessLength> excess_lengths[] = {{"drop", ExcessLength::drop},
                                                            {"truncate", ExcessLength::truncate},
                                                            {"error", ExcessLength::error},
                                                            {"raise", ExcessLength::error}};
inline constexpr Spelling<TrainOnEos> train_on_eos_choices[] = {
    {"turn", TrainOnEos::turn}, {"all", TrainOnEos::all}, {"last", TrainOnEos::last}, {"none", TrainOnEos::none}};
inline constexpr Spelling<PackStrategy> pack_strategies[] = {
    {"bfd", PackStrategy::bfd}, {"sequential", PackStrategy::sequential}, {"none", PackStrategy::none}};
inline constexpr Spelling<LrScheduler> lr_schedulers[] = {{"constant", LrScheduler::constant},
                                                          {"constant_with_warmup", LrScheduler::constant_with_warmup},
                                                          {"linear", LrScheduler::linear},
                                                          {"cosine", LrScheduler::cosine},
                                                          {"cosine_with_min_lr", LrScheduler::cosine_with_min_lr},
                                                          {"wsd", LrScheduler::wsd},
                                                          {"warmup_stable_decay", LrScheduler::wsd}};
inline constexpr Spelling<LrDecay> lr_decays[] = {
    {"linear", LrDecay::linear}, {"cosine", LrDecay::cosine}, {"1-sqrt", LrDecay::one_minus_sqrt}};

template <typename E>
std::span<const Spelling<E>> spellings() {
    if constexpr (std::is_same_v<E, Stage>) return stages;
    if constexpr (std::is_same_v<E, DeviceChoice>) return devices;
    if constexpr (std::is_same_v<E, When>) return whens;
    if constexpr (std::is_same_v<E, Optimizer>) return optimizers;
    if constexpr (std::is_same_v<E, Report>) return reports;
    if constexpr (std::is_same_v<E, Architecture>) return architectures;
    if constexpr (std::is_same_v<E, ExcessLength>) return excess_lengths;
    if constexpr (std::is_same_v<E, TrainOnEos>) return train_on_eos_choices;
    if constexpr (std::is_same_v<E, PackStrategy>) return pack_strategies;
    if constexpr (std::is_same_v<E, LrScheduler>) return lr_schedulers;
    if constexpr (std::is_same_v<E, LrDecay>) return lr_decays;
}
