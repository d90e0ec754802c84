#pragma once
// Spellings: the names that the config and the command lines use for the values of each enum.

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "train/config/config.h"

namespace colonnade {

/// Names of an enum's values. If a value has several names, the first one is written.
template <typename E>
struct Spelling {
    const char* name;
    E value;
};
template <typename E>
inline constexpr std::array<Spelling<E>, 0> spellings{};
template <>
inline constexpr auto spellings<Stage> = std::to_array<Spelling<Stage>>({{"pt", Stage::pt},
                                                                         {"sft", Stage::sft},
                                                                         {"dpo", Stage::dpo},
                                                                         {"rm", Stage::rm},
                                                                         {"kto", Stage::kto},
                                                                         {"grpo", Stage::grpo},
                                                                         {"distill", Stage::distill}});
template <>
inline constexpr auto spellings<Spelled> = std::to_array<Spelling<Spelled>>({{"text", Spelled::text},
                                                                             {"token", Spelled::token}});
template <>
inline constexpr auto spellings<DeviceChoice> = std::to_array<Spelling<DeviceChoice>>(
    {{"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}});
template <>
inline constexpr auto spellings<Tristate> = std::to_array<Spelling<Tristate>>({{"auto", Tristate::automatic},
                                                                               {"true", Tristate::on},
                                                                               {"false", Tristate::off}});
template <>
inline constexpr auto spellings<Fit> = std::to_array<Spelling<Fit>>(
    {{"off", Fit::off}, {"auto", Fit::automatic}, {"false", Fit::off}, {"true", Fit::automatic}});
template <>
inline constexpr auto spellings<RankedPairs> = std::to_array<Spelling<RankedPairs>>({{"all", RankedPairs::all},
                                                                                     {"best", RankedPairs::best}});
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
inline constexpr auto spellings<Every> = std::to_array<Spelling<Every>>(
    {{"no", Every::never}, {"steps", Every::steps}, {"epoch", Every::epoch}, {"best", Every::best}});
template <>
inline constexpr auto spellings<Finetuning> = std::to_array<Spelling<Finetuning>>({{"full", Finetuning::full},
                                                                                   {"lora", Finetuning::lora},
                                                                                   {"freeze", Finetuning::freeze}});
template <>
inline constexpr auto spellings<BaseQuantization> = std::to_array<Spelling<BaseQuantization>>(
    {{"none", BaseQuantization::none}, {"fp8", BaseQuantization::fp8}, {"nf4", BaseQuantization::nf4}});
template <>
inline constexpr auto spellings<Compute> = std::to_array<Spelling<Compute>>({{"bf16", Compute::bf16},
                                                                             {"fp8", Compute::fp8}});
template <>
inline constexpr auto spellings<Optim> = std::to_array<Spelling<Optim>>({{"adamw", Optim::adamw},
                                                                         {"adamw_8bit", Optim::adamw_8bit},
                                                                         {"muon", Optim::muon},
                                                                         {"adamw_torch", Optim::adamw},
                                                                         {"adamw_torch_fused", Optim::adamw},
                                                                         {"adamw_bnb_8bit", Optim::adamw_8bit},
                                                                         {"adamw_torch_8bit", Optim::adamw_8bit}});
template <>
inline constexpr auto spellings<Report> = std::to_array<Spelling<Report>>({{"jsonl", Report::jsonl},
                                                                           {"tensorboard", Report::tensorboard},
                                                                           {"csv", Report::csv},
                                                                           {"wandb", Report::wandb},
                                                                           {"trackio", Report::trackio},
                                                                           {"mlflow", Report::mlflow}});
template <>
inline constexpr auto spellings<LossSpike> = std::to_array<Spelling<LossSpike>>({{"off", LossSpike::off},
                                                                                 {"warn", LossSpike::warn},
                                                                                 {"skip", LossSpike::skip},
                                                                                 {"stop", LossSpike::stop},
                                                                                 {"false", LossSpike::off}});
template <>
inline constexpr auto spellings<Architecture> = [] {
    std::array<Spelling<Architecture>, model_families.size()> names{};
    for (size_t i = 0; i < names.size(); ++i) names[i] = {model_families[i].model_type, model_families[i].architecture};
    return names;
}();
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
inline constexpr auto spellings<History> = std::to_array<Spelling<History>>({{"auto", History::automatic},
                                                                             {"per_turn", History::per_turn},
                                                                             {"as_rendered", History::as_rendered}});
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
                                          {"cosine_with_restarts", LrScheduler::cosine_with_restarts},
                                          {"polynomial", LrScheduler::polynomial},
                                          {"inverse_sqrt", LrScheduler::inverse_sqrt},
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
/// loss_type rloo has leave_one_out, which nothing spells. TRL reads true and false too.
template <>
inline constexpr auto spellings<AdvantageScale> =
    std::to_array<Spelling<AdvantageScale>>({{"group", AdvantageScale::group},
                                             {"batch", AdvantageScale::batch},
                                             {"none", AdvantageScale::none},
                                             {"true", AdvantageScale::group},
                                             {"false", AdvantageScale::none}});
template <>
inline constexpr auto spellings<RewardAggregation> =
    std::to_array<Spelling<RewardAggregation>>({{"sum_then_normalize", RewardAggregation::sum_then_normalize},
                                                {"normalize_then_sum", RewardAggregation::normalize_then_sum}});
template <>
inline constexpr auto spellings<UnpairedLoss> = std::to_array<Spelling<UnpairedLoss>>(
    {{"kto", UnpairedLoss::kto}, {"apo_zero_unpaired", UnpairedLoss::apo_zero_unpaired}});
template <>
inline constexpr auto spellings<RankingKind> = std::to_array<Spelling<RankingKind>>(
    {{"pairwise", RankingKind::pairwise}, {"plackett_luce", RankingKind::plackett_luce}});

template <>
inline constexpr auto spellings<PolicyLoss> = std::to_array<Spelling<PolicyLoss>>({{"dapo", PolicyLoss::dapo},
                                                                                   {"grpo", PolicyLoss::grpo},
                                                                                   {"dr_grpo", PolicyLoss::dr_grpo},
                                                                                   {"luspo", PolicyLoss::luspo},
                                                                                   {"cispo", PolicyLoss::cispo},
                                                                                   {"sapo", PolicyLoss::sapo},
                                                                                   {"rloo", PolicyLoss::rloo}});
template <>
inline constexpr auto spellings<RatioLevel> = std::to_array<Spelling<RatioLevel>>(
    {{"token", RatioLevel::token}, {"sequence", RatioLevel::sequence}, {"sequence_sum", RatioLevel::sequence_sum}});
template <>
inline constexpr auto spellings<ImportanceMode> =
    std::to_array<Spelling<ImportanceMode>>({{"sequence_mask", ImportanceMode::sequence_mask},
                                             {"sequence_truncate", ImportanceMode::sequence_truncate},
                                             {"token_mask", ImportanceMode::token_mask},
                                             {"token_truncate", ImportanceMode::token_truncate}});
template <>
inline constexpr auto spellings<OldLogps> =
    std::to_array<Spelling<OldLogps>>({{"row", OldLogps::row}, {"start", OldLogps::start}, {"none", OldLogps::none}});

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

}  // namespace colonnade
