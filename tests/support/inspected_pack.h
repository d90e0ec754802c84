#pragma once
// An inspection as a real one is: a packed row of chats and pairs of answers, in words drawn from few common ones and
// many rare ones, with a whole mask and a window; some suspicious rows that are not in it.

#include <fmt/format.h>

#include <cmath>
#include <random>

#include "attention/plan_picture.h"
#include "train/inspect/inspection.h"

namespace colonnade {

/// Writes samples token by token.
class SampleWriter {
  public:
    explicit SampleWriter(uint64_t seed) : random_(seed) {
        const std::string letters = "etaoinshrdlucmfwypvbgkjqxz";
        std::geometric_distribution<size_t> letter(.12);
        for (int i = 0; i < vocabulary; ++i) {
            std::string word = i % 3 == 0 ? "" : " ";
            for (int k = draw(1, 6); k >= 0; --k) word += letters[letter(random_) % letters.size()];
            words_.push_back(word);
        }
    }
    int64_t draw(int64_t least, int64_t most) { return std::uniform_int_distribution(least, most)(random_); }

    void special(InspectedSequence& to, int32_t id, const std::string& text, float weight = 0) {
        add(to, vocabulary + id, text, weight);
        to.special.back() = 1;
    }
    void words(InspectedSequence& to, int64_t count, float weight = 0) {
        for (int64_t k = 0; k < count; ++k) {
            if (k % 40 == 39) {
                add(to, vocabulary + 10, "\n", weight);
                continue;
            }
            // Zipf's law: the n-th word with a frequency of about 1 / n.
            const double share = std::uniform_real_distribution(0.0, 1.0)(random_);
            const auto word = static_cast<size_t>(std::pow(vocabulary, share)) - 1;
            add(to, static_cast<int32_t>(word), words_[word], weight);
        }
    }
    void turn(InspectedSequence& to, const std::string& role, int64_t count, float weight) {
        special(to, 1, "<|im_start|>");
        add(to, vocabulary + 11, role, 0);
        add(to, vocabulary + 10, "\n", 0);
        words(to, count, weight);
        special(to, 2, "<|im_end|>", weight);
        add(to, vocabulary + 10, "\n", 0);
    }
    /// A chat of a turn or two, or a prompt with two answers, of about `tokens`.
    InspectedSample sample(const std::string& place, int64_t tokens, int64_t answers, float weight) {
        InspectedSample made{.place = place};
        InspectedSequence chat;
        const int64_t stem = std::max<int64_t>(1, tokens / 3 - 10);
        turn(chat, "user", stem, 0);
        const int64_t shared = std::ssize(chat.ids);
        const int64_t own = std::max<int64_t>(1, (tokens - shared) / answers - 5);
        made.tokens = shared;
        for (int64_t k = 0; k < answers; ++k) {
            made.sequences.push_back(chat);
            InspectedSequence& sequence = made.sequences.back();
            if (answers > 1) sequence.name = k == 0 ? "chosen" : "rejected";
            if (k > 0) sequence.shared = shared;
            turn(sequence, "assistant", own, weight);
            made.tokens += std::ssize(sequence.ids) - shared;
        }
        return made;
    }

  private:
    static constexpr int32_t vocabulary = 12000;

    void add(InspectedSequence& to, int32_t id, const std::string& text, float weight) {
        to.ids.push_back(id);
        to.texts.push_back(text);
        to.special.push_back(0);
        to.weights.push_back(weight);
    }

    std::mt19937_64 random_;
    std::vector<std::string> words_{};
};

/// Places a sample's tokens in the row, and its sequences in the walk that gives the mask.
inline void place_sample(Inspection& into, InspectedSample sample, std::vector<WalkedSequence>& walk) {
    InspectedRow& row = into.row;
    const auto number = static_cast<int32_t>(into.samples.size());
    for (size_t s = 0; s < sample.sequences.size(); ++s) {
        InspectedSequence& sequence = sample.sequences[s];
        for (size_t k = 0; k < sequence.ids.size(); ++k) {
            if (std::cmp_less(k, sequence.shared)) {
                const int32_t at = sample.sequences[s - 1].rows[k];
                sequence.rows.push_back(at);
                row.weights[static_cast<size_t>(at)] += sequence.weights[k];
                ++row.users[static_cast<size_t>(at)];
                continue;
            }
            sequence.rows.push_back(static_cast<int32_t>(row.ids.size()));
            row.ids.push_back(sequence.ids[k]);
            row.texts.push_back(sequence.texts[k]);
            row.weights.push_back(sequence.weights[k]);
            row.samples.push_back(number);
            row.sequences.push_back(static_cast<int32_t>(s));
            row.users.push_back(1);
        }
        walk.push_back({sequence.shared, std::ssize(sequence.ids) - sequence.shared});
    }
    into.samples.push_back(std::move(sample));
}

inline InspectedMask inspected_mask(const std::string& name, const ColumnMask& mask, int64_t tile) {
    InspectedMask shown{.name = name, .mask = mask, .tiles = {.tokens = mask.rows, .tile = tile}};
    const TilePlan plan = make_tile_plan(mask, tile, tile);
    const std::string classes = tile_classes({}, plan);
    const auto line = static_cast<size_t>(plan.column_blocks);
    for (size_t at = 0; at < classes.size(); at += line) shown.tiles.classes.push_back(classes.substr(at, line));
    shown.visible = static_cast<double>(count_visible_pairs(mask)) /
                    (static_cast<double>(mask.rows) * static_cast<double>(mask.columns));
    return shown;
}

/// A row of `length` tokens from `samples` samples; every third has two answers.
inline Inspection inspected_pack(int64_t length, int64_t samples, int64_t tile = 128) {
    Inspection made{.title = "chats.yaml", .facts = {{"model", "qwen3, 28 layers"}, {"stage", "sft"}}};
    SampleWriter writer(7);
    std::vector<WalkedSequence> walk;
    for (int64_t s = 0; s < samples; ++s) {
        const int64_t room = length - std::ssize(made.row.ids), mean = room / (samples - s);
        const std::string place = fmt::format("chats.jsonl:{}", 3 * s + 1);
        const int64_t tokens = s + 1 == samples ? room - 40 : writer.draw(mean / 2, mean * 3 / 2 - 40);
        place_sample(made, writer.sample(place, tokens, s % 3 == 1 ? 2 : 1, s == 3 ? 0.0F : 1.0F), walk);
    }
    InspectedRow& row = made.row;
    row.number = row.of = 1;
    row.real_tokens = std::ssize(row.ids);
    const auto size = static_cast<size_t>(length);
    row.ids.resize(size);
    row.texts.resize(size);
    row.weights.resize(size);
    row.samples.resize(size, -1);
    row.sequences.resize(size);
    row.users.resize(size);
    row.positions = tree_positions(length, walk);
    const ColumnMask mask = tree_mask(length, walk);
    made.masks.push_back(inspected_mask("layers 2, 4: all tokens before", mask, tile));
    made.masks.push_back(inspected_mask("layers 1, 3: window 256", mask.with_sliding_window(256, row.positions), tile));
    if (samples > 3) made.samples[3].notes = {"nothing learned"};
    for (int64_t s = 0; s < 3; ++s) {
        made.samples.push_back(writer.sample(fmt::format("chats.jsonl:{}", 1000 + s), 60, 1, 0));
        made.samples.back().notes = {"very short"};
    }
    made.notes = {
        {"dropped", "longer than packing_length", "the sample has more tokens than a packed row", 2, {}},
        {"suspicious", "nothing learned", "no token of the sample has a weight in the loss", 1, {"chats.jsonl:10"}},
        {"suspicious", "very short", "fewer than 64 tokens", 5, {"chats.jsonl:1000", "chats.jsonl:1001"}}};
    std::vector<int64_t> lengths;
    for (const InspectedSample& sample : made.samples) lengths.push_back(sample.tokens);
    made.lengths = histogram(lengths);
    made.length_table = {{"min", "p50", "max"}, {"60", "512", "900"}};
    made.fill_table = {{"packing", "rows", "fill"}, {"one sample a row", "60", "1.7 %"}, {"packed", "1", "99.8 %"}};
    return made;
}

}  // namespace colonnade
