#include "train/generation/generator.h"

#include <algorithm>
#include <numeric>

#include "engine/device/host_copy.h"

namespace colonnade {
namespace {

DecoderOptions decoder_options(const GeneratorOptions& o, Device device) {
    const int64_t piece = o.piece > 0 ? o.piece : device == Device::cuda ? 4096 : 512;
    return {.cache = {.slots = o.batch, .capacity = o.max_length},
            .piece = std::min(piece, o.batch * o.max_length),
            .lora = o.lora,
            .gpu = o.gpu};
}

int64_t common_beginning(std::span<const int32_t> a, std::span<const int32_t> b) {
    return std::ranges::mismatch(a, b).in1 - a.begin();
}

}  // namespace

Generator::Generator(const ModelConfig& config, const ModelParameters& weights, const GeneratorOptions& options)
    : reuse_cache_(options.reuse_cache),
      decoder_(config, weights, decoder_options(options, options.gpu ? Device::cuda : Device::cpu)),
      free_slots_(static_cast<size_t>(options.batch)),
      held_(static_cast<size_t>(options.batch)) {
    std::iota(free_slots_.begin(), free_slots_.end(), 0);
}

Arena Generator::plan(const ModelConfig& config, const GeneratorOptions& options, DType matrices, Device device,
                      bool quantised) {
    return Decoder::plan(config, decoder_options(options, device), matrices, device, quantised);
}

void Generator::check_prompt(std::span<const int32_t> prompt, int64_t room) const {
    const auto length = std::ssize(prompt);
    if (length == 0) fail(Exit::data, "the prompt is empty");
    if (length + room > max_length())
        fail(Exit::data, "the prompt has {} tokens, but prompt and answer together may have {}", length, max_length());
    const int64_t vocab = decoder_.config().vocab_size;
    for (const int32_t token : prompt)
        if (token < 0 || token >= vocab) fail(Exit::data, "token {} is outside the vocabulary [0, {})", token, vocab);
}

std::vector<Answer> Generator::answer(const Context& ctx, std::span<const Request> requests, const Done& on_done) {
    on_done_ = on_done;
    for (const Request& r : requests) check_prompt(r.prompt, 1);
    std::vector<Answer> answers(requests.size());
    Pending pending;
    for (size_t i = 0; i < requests.size(); ++i) {
        const int64_t fits = max_length() - std::ssize(requests[i].prompt);
        pending.push_back({.request = &requests[i],
                           .answer = &answers[i],
                           .index = i,
                           .slot = -1,
                           .room = std::min(requests[i].options.max_new_tokens, fits)});
        answers[i].end = pending.back().room < requests[i].options.max_new_tokens ? AnswerEnd::cache_full
                                                                                  : AnswerEnd::max_new_tokens;
    }
    live_.clear();
    free_slots_.resize(held_.size());
    std::iota(free_slots_.begin(), free_slots_.end(), 0);
    while (!pending.empty() || !live_.empty()) {
        admit(ctx, pending);
        if (!live_.empty()) decode(ctx);
        retire();
    }
    return answers;
}

std::vector<int32_t> Generator::generate(const Context& ctx, std::span<const int32_t> prompt,
                                         const GenerateOptions& options) {
    const Request request{{prompt.begin(), prompt.end()}, options};
    return answer(ctx, {&request, 1}).front().tokens;
}

// --- Prompts ---

/// Takes the slot whose content shares the longest beginning with the prompt, else the first free one.
int64_t Generator::take_slot(const Request& request) {
    const auto shared = [&](int64_t slot) {
        return reuse_cache_ ? common_beginning(held_[static_cast<size_t>(slot)], request.prompt) : 0;
    };
    const auto best = std::ranges::max_element(free_slots_, {}, shared);
    const int64_t slot = *best;
    free_slots_.erase(best);
    return slot;
}

void Generator::admit(const Context& ctx, Pending& pending) {
    const int64_t piece = decoder_.options().piece;
    while (!pending.empty() && !free_slots_.empty()) {
        // On a GPU short prompts are read together; on the CPU one at a time, so that an answer is the same to the bit
        // whatever the other prompts are.
        std::vector<Live> group;
        int64_t tokens = 0;
        while (!pending.empty() && !free_slots_.empty()) {
            const auto length = std::ssize(pending.front().request->prompt);
            const bool alone = !ctx.gpu || reuse_cache_ || length > piece;
            if (!group.empty() && (alone || tokens + length > piece || std::ssize(group) == decoder_.rows())) break;
            group.push_back(pending.front());
            pending.pop_front();
            group.back().slot = take_slot(*group.back().request);
            tokens += length;
            if (alone) break;
        }
        for (Live& live : group)
            if (live.request->options.sampling.repetition_penalty != 1)
                decoder_.set_seen(ctx, live.slot, live.request->prompt);
        if (group.size() == 1)
            read_in_pieces(ctx, group.front());
        else
            read_whole(ctx, group);
        retire();
    }
}

void Generator::read_whole(const Context& ctx, std::vector<Live>& group) {
    std::vector<Decoder::Piece> pieces;
    std::vector<int32_t> last;
    int64_t tokens = 0;
    for (const Live& live : group) {
        pieces.push_back({.slot = live.slot, .begin = 0, .tokens = live.request->prompt});
        tokens += std::ssize(live.request->prompt);
        last.push_back(static_cast<int32_t>(tokens - 1));
        held_[static_cast<size_t>(live.slot)] = live.request->prompt;
    }
    const Tensor hidden = decoder_.read(ctx, pieces);
    draw_first(ctx, group, decoder_.logits_of(ctx, hidden, last));
}

void Generator::read_in_pieces(const Context& ctx, Live& live) {
    const std::vector<int32_t>& prompt = live.request->prompt;
    std::vector<int32_t>& held = held_[static_cast<size_t>(live.slot)];
    const int64_t length = std::ssize(prompt), piece = decoder_.options().piece;
    // The last token is read anyway: its logits choose the first token of the answer.
    int64_t at = reuse_cache_ ? std::min(common_beginning(held, prompt), length - 1) : 0;
    live.answer->reused = at;
    Tensor hidden;
    for (; at < length; at += hidden.size(0)) {
        const Decoder::Piece next{live.slot, at,
                                  std::span(prompt)
                                      .subspan(static_cast<size_t>(at))
                                      .first(static_cast<size_t>(std::min(piece, length - at)))};
        hidden = decoder_.read(ctx, {&next, 1});
    }
    held = prompt;
    std::vector<Live> group{live};
    draw_first(ctx, group, decoder_.logits_of(ctx, hidden, {static_cast<int32_t>(hidden.size(0) - 1)}));
}

void Generator::draw_first(const Context& ctx, std::vector<Live>& group, const Tensor& logits) {
    std::vector<Decoder::Row> rows;
    for (const Live& live : group)
        rows.push_back({.slot = live.slot,
                        .token = 0,
                        .position = static_cast<int32_t>(std::ssize(live.request->prompt)) - 1,
                        .drawn = 0,
                        .sampling = live.request->options.sampling});
    decoder_.set_rows(ctx, rows);
    decoder_.sample(ctx, logits);
    const std::vector<int32_t> tokens = decoder_.take();
    for (size_t i = 0; i < group.size(); ++i) {
        accept(group[i], tokens[i]);
        live_.push_back(group[i]);
    }
}

std::vector<float> Generator::prompt_logits(const Context& ctx, std::span<const int32_t> prompt) {
    check_prompt(prompt, 0);
    std::vector<float> all;
    const int64_t length = std::ssize(prompt), piece = decoder_.options().piece;
    held_.front().clear();
    for (int64_t at = 0; at < length; at += piece) {
        const Decoder::Piece next{
            0, at, prompt.subspan(static_cast<size_t>(at)).first(static_cast<size_t>(std::min(piece, length - at)))};
        const Tensor hidden = decoder_.read(ctx, {&next, 1});
        for (int64_t row = 0; row < hidden.size(0); row += decoder_.rows()) {
            const Tensor some = hidden.slice(0, row, std::min(hidden.size(0), row + decoder_.rows()));
            const HostCopy values = HostCopy::of(ctx.gpu, decoder_.logits(ctx, some));
            const auto* const first = values.tensor().as<float>();
            all.insert(all.end(), first, first + values.tensor().numel());
        }
    }
    return all;
}

// --- Answers ---

Decoder::Row Generator::row_of(const Live& live) const {
    return {.slot = live.slot,
            .token = live.answer->tokens.back(),
            .position = static_cast<int32_t>(std::ssize(live.request->prompt)) + live.drawn() - 1,
            .drawn = live.drawn(),
            .sampling = live.request->options.sampling};
}

void Generator::accept(Live& live, int32_t token) {
    if (live.done) return;
    const std::vector<int32_t>& stops = live.request->options.stop_ids;
    if (std::ranges::find(stops, token) != stops.end()) {
        live.answer->end = AnswerEnd::stop_id;
        live.done = true;
        return;
    }
    std::vector<int32_t>& answer = live.answer->tokens;
    if (live.room > 0) {
        if (!answer.empty()) held_[static_cast<size_t>(live.slot)].push_back(answer.back());  // it has been read
        answer.push_back(token);
        if (live.request->on_token && !live.request->on_token(token)) {
            live.answer->end = AnswerEnd::caller;
            live.done = true;
        }
    }
    live.done = live.done || live.drawn() >= live.room;
}

/// Steps until an answer is done. The host takes tokens while the device is at the next step already.
void Generator::decode(const Context& ctx) {
    const int64_t ahead = ctx.gpu ? 2 : 1;
    std::vector<Decoder::Row> rows;
    for (const Live& live : live_) rows.push_back(row_of(live));
    decoder_.set_rows(ctx, rows);
    const auto has_room = [&] {
        return std::ranges::all_of(live_, [&](const Live& l) { return l.drawn() + decoder_.waiting() < l.room; });
    };
    const auto take = [&] {
        const std::vector<int32_t> tokens = decoder_.take();
        for (size_t i = 0; i < live_.size(); ++i) accept(live_[i], tokens[i]);
    };
    while (std::ranges::none_of(live_, &Live::done)) {
        while (decoder_.waiting() < ahead && has_room()) decoder_.step(ctx);
        take();
    }
    while (decoder_.waiting() > 0) take();
}

void Generator::retire() {
    for (const Live& live : live_) {
        if (!live.done) continue;
        free_slots_.push_back(live.slot);
        if (on_done_) on_done_(live.index, *live.answer);
    }
    std::erase_if(live_, [](const Live& live) { return live.done; });
    std::ranges::sort(free_slots_);
}

}  // namespace colonnade
