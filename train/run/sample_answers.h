#pragma once
// SampleAnswers: what the model in training answers to prompts of the evaluation data (keys eval_table_size and
// eval_max_new_tokens), greedily, with the weights where they are: f32 on the CPU, bf16 on a GPU, adapters unmerged.
//
// A prompt is a sample up to its first token that is trained on: a chat as the template renders it up to the answer, or
// the prompt of a pair. The reference is what training would teach there: the trained tokens that follow, or the chosen
// answer. Of a text that is trained on from its beginning, the first quarter, at most 64 tokens, is the prompt.
//
// Nothing here changes what training computes: the generator has memory of its own.

#include <optional>

#include "train/generation/generator.h"
#include "train/log/metrics_log.h"
#include "train/run/session.h"

namespace colonnade {

struct SamplePrompt {
    std::string row;  ///< place of the sample
    std::vector<int32_t> tokens, reference;
};

/// Prompts of eval_table_size samples at equal distances in the evaluation data; fewer if it has not as many whose
/// prompt leaves the model room for an answer.
std::vector<SamplePrompt> choose_prompts(const Session& session);

class SampleAnswers {
  public:
    /// Takes the generator's memory. Throws Exit::memory with the figures. Session and learner must outlive it.
    SampleAnswers(const Session& session, const Learner& learner);
    /// Bytes on the device that the session has, which this machine need not have; 0 if the config asks for no answers.
    static size_t planned_bytes(const Session& session);

    /// Answers with the present weights. Waits. Throws Exit::numerics if a logit is not a number.
    std::vector<SampleAnswer> answer(const Context& ctx);

  private:
    std::string text_of(const std::vector<int32_t>& tokens) const;

    const Session& session_;
    std::vector<SamplePrompt> prompts_;
    std::vector<Request> requests_;
    std::optional<Generator> generator_;  ///< none without prompts
};

/// The answers as lines for a terminal, long texts shortened.
std::vector<std::string> lines_of(const std::vector<SampleAnswer>& samples);

}  // namespace colonnade
