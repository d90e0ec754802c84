#pragma once
// Generator: answers prompts, as many at a time as its decoder has slots; when an answer ends, the next prompt takes its
// slot. docs/generation.md describes the options.
//
// The same prompt, options and seed give the same answer, whatever the other prompts are: on the CPU always; on a GPU
// while at most decode_rows sequences are under way (layers/decode_linear.h) and prompts are read alone, because the
// rounding of a large product depends on its size.

#include <deque>

#include "train/generation/decoder.h"

namespace colonnade {

struct GenerateOptions {
    int64_t max_new_tokens = 256;
    Sampling sampling{};
    std::vector<int32_t> stop_ids{};  ///< an answer ends at one of these, which it does not contain
};

struct Request {
    std::vector<int32_t> prompt;
    GenerateOptions options{};
    /// Called with each token of the answer in turn; false ends the answer behind that token.
    std::function<bool(int32_t token)> on_token{};
};

enum class AnswerEnd { stop_id, max_new_tokens, cache_full, caller };
struct Answer {
    std::vector<int32_t> tokens;
    AnswerEnd end = AnswerEnd::max_new_tokens;
    int64_t reused = 0;  ///< tokens of the prompt that the cache held already
};

struct GeneratorOptions {
    int64_t max_length = 2048;  ///< tokens of a prompt and its answer together
    int64_t batch = 1;          ///< sequences at a time
    std::optional<LoraSettings> lora{};
    Gpu* gpu = nullptr;
    int64_t piece = 0;  ///< most tokens of prompts that are read at a time; 0: the best for the device
    /// A prompt that begins like one before it finds those tokens in the cache. Answers are then the same but for
    /// rounding.
    bool reuse_cache = false;
};

class Generator {
  public:
    /// Throws as Decoder does.
    Generator(const ModelConfig& config, const ModelParameters& weights, const GeneratorOptions& options);
    /// The memory plan on a device that this machine need not have; `matrices`: the dtype of the model's, unless they are
    /// quantised.
    static Arena plan(const ModelConfig& config, const GeneratorOptions& options, DType matrices, Device device,
                      bool quantised = false);

    /// Answers in the order of the requests. Throws Exit::data, before any work, for a prompt that is empty, does not
    /// fit, or has a token outside the vocabulary; Exit::numerics if a logit is not a number.
    /// `on_done` is called with each answer as it ends.
    using Done = std::function<void(size_t request, const Answer& answer)>;
    std::vector<Answer> answer(const Context& ctx, std::span<const Request> requests, const Done& on_done = {});
    std::vector<int32_t> generate(const Context& ctx, std::span<const int32_t> prompt, const GenerateOptions& options);

    /// Logits of every token of `prompt`, [tokens * vocab]. Throws as answer() does.
    std::vector<float> prompt_logits(const Context& ctx, std::span<const int32_t> prompt);

    Decoder& decoder() { return decoder_; }
    int64_t max_length() const { return decoder_.options().cache.capacity; }

  private:
    /// A request that has a slot.
    struct Live {
        const Request* request;
        Answer* answer;
        size_t index;  ///< of the request
        int64_t slot;
        int64_t room;  ///< most tokens of the answer
        bool done = false;
        int32_t drawn() const { return static_cast<int32_t>(answer->tokens.size()); }
    };
    using Pending = std::deque<Live>;

    void check_prompt(std::span<const int32_t> prompt, int64_t room) const;
    /// Takes requests into free slots, reads their prompts and draws their first tokens.
    void admit(const Context& ctx, Pending& pending);
    int64_t take_slot(const Request& request);
    void read_whole(const Context& ctx, std::vector<Live>& group);
    void read_in_pieces(const Context& ctx, Live& live);
    void draw_first(const Context& ctx, std::vector<Live>& group, const Tensor& logits);
    void decode(const Context& ctx);
    void accept(Live& live, int32_t token);
    /// Gives the slots of answers that are done back.
    void retire();
    Decoder::Row row_of(const Live& live) const;

    bool reuse_cache_;
    Done on_done_;
    Decoder decoder_;
    std::vector<Live> live_;
    std::vector<int64_t> free_slots_;
    std::vector<std::vector<int32_t>> held_;  ///< tokens in the cache, per slot
};

}  // namespace colonnade
