// The models and samples of Subject that need no file.

#include <algorithm>
#include <cmath>

#include "engine/device/philox.h"
#include "train/objectives/policy_objective.h"
#include "train/objectives/preference_objective.h"
#include "train/objectives/reward_objective.h"
#include "train/objectives/unpaired_objective.h"
#include "train/selftest/random_model.h"
#include "train/selftest/subject.h"

namespace colonnade {
namespace {

constexpr Architecture families[] = {Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                     Architecture::qwen3};

std::shared_ptr<const Objective> objective_of(const std::string& stage) {
    if (stage == "dpo") {
        PreferenceMix mix;
        mix.count = 2;
        mix.losses[0] = PreferenceLoss::sigmoid, mix.weights[0] = 1;
        mix.losses[1] = PreferenceLoss::sft, mix.weights[1] = 0.3;
        return std::make_shared<PreferenceObjective>(mix);
    }
    if (stage == "rm") return std::make_shared<RewardObjective>(RankingKind::pairwise, 0.01);
    if (stage == "kto") return std::make_shared<UnpairedObjective>(UnpairedSettings{});
    if (stage == "grpo") return std::make_shared<PolicyObjective>(PolicyOptions{.settings = {.beta = 0.1}});
    return std::make_shared<LanguageModelObjective>();
}

/// Lengths such that packs span several attention tiles, and samples begin and end inside of tiles.
std::vector<Sample> texts(int64_t vocab) {
    std::vector<Sample> samples;
    for (const int64_t length : {70, 1, 33, 64, 2, 90, 17, 128, 5})
        samples.push_back(random_sample(static_cast<uint64_t>(length), 0, {length}, vocab));
    samples.push_back(random_sample(99, 20, {15, 30}, vocab));
    return samples;
}

std::vector<Sample> pairs(int64_t vocab) {
    return {random_answers(1, 30, {15, 40}, vocab), random_answers(2, 1, {1, 1}, vocab),
            random_answers(3, 90, {3, 2}, vocab), random_answers(4, 4, {70, 9}, vocab),
            random_answers(5, 17, {33, 64}, vocab)};
}

/// Single answers, several to each prompt; a row shares the prompts.
std::vector<Sample> single_answers(int64_t vocab) {
    const Philox random{3, 17};
    uint64_t draw = 0;
    std::vector<Sample> samples;
    for (const int64_t prompt : {30, 1, 9}) {
        const Sample group = random_answers(static_cast<uint64_t>(prompt), prompt, {24, 11, 3, 40}, vocab);
        for (size_t answer = 0; answer < group.sequences.size(); ++answer) {
            Sample& sample = samples.emplace_back(alone(group, answer));
            sample.sequences[0].advantage = static_cast<float>(random.normal(draw++));
            sample.sequences[0].reward = static_cast<float>(random.below(draw++, 5)) / 4;
        }
    }
    return samples;
}

/// Sequences that grow out of parts of earlier ones: prefix trees of any depth.
std::vector<Sample> branches(int64_t vocab) {
    const Philox random{8, 19};
    uint64_t draws = 0;
    const auto draw = [&](int64_t n) { return static_cast<int64_t>(random.below(draws++, static_cast<uint64_t>(n))); };
    std::vector<Sample> samples;
    for (int i = 0; i < 14; ++i) {
        Sequence sequence;
        if (i % 5 > 0) {
            sequence.tokens = samples[static_cast<size_t>(draw(i))].whole(0);
            sequence.tokens.resize(static_cast<size_t>(draw(std::ssize(sequence.tokens)) + 1));
        }
        for (int64_t n = 5 + draw(40); n > 0; --n) sequence.tokens.push_back(static_cast<int32_t>(draw(vocab)));
        sequence.learned = {{1, static_cast<int32_t>(sequence.tokens.size()), i % 2 ? 1.0f : 0.5f}};
        samples.push_back({.sequences = {sequence}});
    }
    return samples;
}

/// Log-probabilities near those of the model, as of a policy a few updates ago and of a reference.
void give_logps(std::vector<Sample>& samples, Learner& learner) {
    const Philox random{5, 18};
    uint64_t draw = 0;
    for (Sample& sample : samples)
        for (const double logp : learner.measure(learner.context(), make_batch({{&sample}}))) {
            const auto near = [&] { return static_cast<float>(std::min(logp + 0.3 * random.normal(draw++), -1e-3)); };
            sample.sequences[0].logps.old.push_back(near());
            sample.sequences[0].logps.reference.push_back(near());
        }
}

/// A reference that is not the model, so that margins are not 0.
std::vector<double> reference_near(const Subject& subject) {
    std::vector<Batch> batches = subject.separate();
    const auto learner = subject.learner(BatchRoom::of(batches));
    std::vector<double> reference;
    for (const Batch& batch : batches)
        for (const double logp : learner->measure(learner->context(), batch))
            reference.push_back(std::floor(logp) + (reference.size() % 2 ? 2.5 : -1.5));
    return reference;
}

/// What the tests of packing allow between two layouts of small models. In f32 thousands of terms are summed in another
/// order; a policy also divides by probabilities. In bf16 every activation is rounded, and the place of a sample decides
/// which way.
double bound_of(const std::string& stage, const Gpu* gpu) {
    if (!gpu) return stage == "grpo" ? 2e-5 : 1e-5;
    return stage == "sft" || stage == "trees" ? 0.02 : stage == "grpo" ? 0.05 : 0.03;
}

struct ModelKind {
    Architecture architecture = Architecture::llama;
    ModelSize size = ModelSize::small;
    DType dtype = DType::f32;  ///< on the CPU
    Gpu* gpu = nullptr;
};

Subject subject_of(const std::string& stage, const ModelKind& kind) {
    ModelConfig config =
        kind.size == ModelSize::tiny ? tiny_config(kind.architecture, false) : small_config(kind.architecture, false);
    const bool shares_rows = stage == "kto" || stage == "grpo" || stage == "trees";
    // A column mask cannot express every window behind what several sequences share.
    if (shares_rows || stage == "rm") config.windows.assign(config.windows.size(), 0);
    config.score_head = stage == "rm";
    const auto make = [config, stage, kind](const BatchRoom& room) {
        auto learner =
            std::make_unique<Learner>(config, LearnerOptions{.max_packs = room.packs,
                                                             .max_length = room.length,
                                                             .density = {.terms = 8, .sequences = 2, .pairs = 2},
                                                             .head_chunk = 64,
                                                             .dtype = kind.dtype,
                                                             .gpu = kind.gpu,
                                                             .objective = objective_of(stage)});
        randomize(*learner, 1);
        return learner;
    };
    Subject subject{.name = name_of(kind.architecture),
                    .learner = make,
                    .samples = {},
                    .sharing = shares_rows ? Sharing::row : Sharing::sample,
                    .bound = bound_of(stage, kind.gpu),
                    .ties = kind.gpu != nullptr};
    const int64_t vocab = config.vocab_size;
    if (stage == "sft") subject.samples = texts(vocab);
    if (stage == "dpo" || stage == "rm") subject.samples = pairs(vocab);
    if (stage == "rm") subject.samples[1] = random_answers(6, 12, {5, 20, 1, 9}, vocab);
    if (stage == "kto" || stage == "grpo") subject.samples = single_answers(vocab);
    if (stage == "trees") subject.samples = branches(vocab);
    if (stage == "kto")
        for (Sample& sample : subject.samples)
            sample.sequences[0].advantage = sample.sequences[0].advantage > 0 ? 1.0f : -1.0f;
    if (stage == "grpo") give_logps(subject.samples, *make({.packs = 1, .length = 128}));
    if (stage == "dpo" || stage == "kto") subject.reference = reference_near(subject);
    return subject;
}

std::vector<Subject> subjects_of(const std::string& stage, ModelKind kind) {
    std::vector<Subject> subjects;
    for (const Architecture architecture : families) {
        kind.architecture = architecture;
        subjects.push_back(subject_of(stage, kind));
    }
    return subjects;
}

}  // namespace

std::vector<Subject> random_subjects(const std::string& stage, Gpu* gpu) {
    return subjects_of(stage, {.gpu = gpu});
}

std::vector<Subject> exact_subjects(const std::string& stage, ModelSize size) {
    return subjects_of(stage, {.size = size, .dtype = DType::f64});
}

}  // namespace colonnade
