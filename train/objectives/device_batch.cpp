#include "train/objectives/device_batch.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/device/device_memory.h"
#include "layers/unpaired_formulas.h"

namespace colonnade {
namespace {

void check_ids(const char* what, const std::vector<int32_t>& ids, int64_t vocab) {
    for (size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= vocab)
            fail(Exit::data, "{} {}: token {} is outside the vocabulary [0, {})", what, i, ids[i], vocab);
}

/// Makes values available on the device: copies them on a GPU, sets `to` to a view of them on the CPU.
template <typename T>
void bring(const Context& ctx, Tensor& to, const std::vector<T>& values) {
    if (ctx.gpu)
        put(ctx, to, values);
    else
        to = Tensor(const_cast<T*>(values.data()), dtype_of<T>(), {std::ssize(values)});
}

/// Of each sequence the sum of the weights of its terms.
std::vector<double> lengths_of(const Batch& batch) {
    std::vector<double> sums(batch.sequences.size());
    for (size_t s = 0; s < sums.size(); ++s)
        for (auto term = static_cast<size_t>(batch.term_begins[s]);
             term < static_cast<size_t>(batch.term_begins[s + 1]); ++term)
            sums[s] += static_cast<double>(batch.term_weights[term]);
    return sums;
}

/// For each value, the places in `values` that have it, in order: value v is at entries[begins[v]], ...
struct Lists {
    std::vector<int32_t> begins, entries;
};
Lists lists_of(const std::vector<int32_t>& values, size_t count) {
    Lists lists{.begins = std::vector<int32_t>(count + 1), .entries = std::vector<int32_t>(values.size())};
    for (const int32_t value : values) ++lists.begins[static_cast<size_t>(value) + 1];
    std::partial_sum(lists.begins.begin(), lists.begins.end(), lists.begins.begin());
    std::vector<int32_t> next(lists.begins.begin(), lists.begins.end() - 1);
    for (size_t i = 0; i < values.size(); ++i)
        lists.entries[static_cast<size_t>(next[static_cast<size_t>(values[i])]++)] = static_cast<int32_t>(i);
    return lists;
}

int64_t longest_list(const TeacherLists& lists) {
    int64_t longest = 0;
    for (int64_t token = 0; token < lists.tokens(); ++token) longest = std::max(longest, lists.length_of(token));
    return longest;
}

std::vector<float> weights_of(const std::vector<AnswerPair>& pairs) {
    std::vector<float> weights;
    for (const AnswerPair& pair : pairs) weights.push_back(pair.weight);
    return weights;
}

}  // namespace

BatchShape BatchShape::of(const Batch& batch) {
    return {batch.packs,
            batch.length,
            std::ssize(batch.rows),
            std::ssize(batch.term_targets),
            std::ssize(batch.sequences),
            batch.samples,
            std::ssize(batch.pairs),
            longest_list(batch.teacher)};
}

BatchShape BatchShape::largest(int64_t packs, int64_t length, const BatchDensity& density) {
    const int64_t tokens = packs * length;
    const auto of = [&](double per_token) {
        return static_cast<int64_t>(std::ceil(per_token * static_cast<double>(tokens)));
    };
    const int64_t sequences = of(density.sequences);
    const int64_t terms = of(density.terms);
    return {
        packs,          length, density.teacher > 0 ? terms : tokens, terms, sequences, sequences, of(density.pairs),
        density.teacher};
}

bool has_reference(const Batch& batch, Answers answers) {
    return answers == Answers::policy ? batch.logps.reference.size() == batch.term_targets.size()
                                      : !batch.reference.empty();
}

void set_reference(Batch& batch, Answers answers, const std::vector<double>& measured) {
    if (answers == Answers::policy)
        batch.logps.reference.assign(measured.begin(), measured.end());
    else
        batch.reference = measured;
}

DeviceBatch DeviceBatch::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape, Answers answers) {
    const auto tensor = [&](DType dtype, std::initializer_list<int64_t> of) {
        return arena.tensor("batch", dtype, of);
    };
    DeviceBatch b;
    b.answers_ = answers;
    b.input.packs = shape.packs;
    b.input.length = shape.length;
    b.scales = tensor(DType::f64, {shape.targets});
    const bool views = arena.device() == Device::cpu;  // of the host's batch, instead of copies
    if (!views || answers == Answers::rankings) b.input.rows = tensor(DType::i32, {shape.head_rows(answers)});
    b.input.token_index = TokenIndex::lay_out(arena, "batch", shape.tokens());
    if (!views) {
        for (Tensor* t : {&b.input.tokens, &b.input.positions}) *t = tensor(DType::i32, {shape.tokens()});
        b.targets = tensor(DType::i32, {shape.targets});
        b.weights = tensor(DType::f64, {shape.targets});
    }
    if (answers == Answers::pairs || answers == Answers::labels || answers == Answers::policy) {
        if (!views) {
            b.terms.begins = tensor(DType::i32, {shape.sequences + 1});
            b.terms.targets = tensor(DType::i32, {shape.terms});
            b.terms.weights = tensor(DType::f32, {shape.terms});
        }
        b.terms.of_targets.begins = tensor(DType::i32, {shape.targets + 1});
        for (Tensor* t : {&b.terms.sequences, &b.terms.of_targets.terms}) *t = tensor(DType::i32, {shape.terms});
        b.lengths = tensor(DType::f64, {shape.sequences});
    }
    if (answers == Answers::pairs || answers == Answers::labels) b.reference = tensor(DType::f64, {shape.sequences});
    if (answers == Answers::pairs) {
        b.pairs.begins = tensor(DType::i32, {shape.sequences + 1});
        b.pairs.sides = tensor(DType::i32, {2 * shape.pairs});
    }
    if (answers == Answers::policy) {
        for (Tensor* t : {&b.advantages, &b.reference}) *t = tensor(DType::f32, {shape.terms});
        if (!views) {
            for (Tensor* t : {&b.old, &b.sampled}) *t = tensor(DType::f32, {shape.terms});
            b.rewards = tensor(DType::f32, {shape.sequences});
        }
    }
    if (answers == Answers::teacher) {
        const int64_t list = std::max<int64_t>(shape.teacher, 1);
        b.teacher_ids = tensor(DType::i32, {shape.targets, list});
        b.teacher_log_probs = tensor(DType::f32, {shape.targets, list});
    }
    if (answers == Answers::labels) b.labels = tensor(DType::i32, {shape.sequences});
    if (answers == Answers::rankings) {
        b.places = tensor(DType::i32, {shape.sequences});
        for (Tensor* t : {&b.sample_begins, &b.pair_begins}) *t = tensor(DType::i32, {shape.samples + 1});
        b.margins = tensor(DType::f32, {shape.pairs});
    }
    if (answers == Answers::pairs || answers == Answers::rankings) {
        b.pairs.pairs = tensor(DType::i32, {shape.pairs, 2});
        b.pairs.weights = tensor(DType::f32, {shape.pairs});
    }
    b.input.masks = AttentionMasks::lay_out(arena, config, shape.packs, shape.length);
    return b;
}

void DeviceBatch::fill(const Context& ctx, const ModelConfig& config, const Batch& batch, double total) {
    check_ids("position", batch.tokens, config.vocab_size);
    check_ids("target", batch.targets, config.vocab_size);
    fill_token_index(ctx, input.token_index, batch.tokens);
    bring(ctx, input.tokens, batch.tokens);
    bring(ctx, input.positions, batch.positions);
    fill_targets(ctx, batch, total);
    if (answers_ == Answers::pairs) {
        fill_terms(ctx, batch);
        fill_pairs(ctx, batch);
    }
    if (answers_ == Answers::rankings) fill_rankings(ctx, batch);
    if (answers_ == Answers::teacher) fill_teacher(ctx, config, batch);
    if (answers_ == Answers::labels || answers_ == Answers::policy) {
        fill_terms(ctx, batch);
        answers_ == Answers::labels ? fill_labels(ctx, batch) : fill_policy(ctx, batch);
    }
    input.masks.fill(ctx, batch.mask, batch.positions);
}

void DeviceBatch::fill_targets(const Context& ctx, const Batch& batch, double total) {
    const size_t count = batch.targets.size();
    require(batch.rows.size() == count && batch.weights.size() == count,
            "a batch of {} targets with {} rows, {} weights", count, batch.rows.size(), batch.weights.size());
    // A step without any weight has total 0: its gradient is exactly 0, not 0 / 0.
    const double scale = total > 0 ? 1 / total : 0;
    std::vector<double> scaled(count);
    for (size_t i = 0; i < count; ++i) scaled[i] = batch.weights[i] * scale;
    put(ctx, scales, scaled);
    if (answers_ != Answers::rankings) bring(ctx, input.rows, batch.rows);
    bring(ctx, targets, batch.targets);
    bring(ctx, weights, batch.weights);
}

void DeviceBatch::fill_terms(const Context& ctx, const Batch& batch) {
    const std::vector<int32_t>& targets_of = batch.term_targets;
    std::vector<int32_t> sequence_of(targets_of.size());
    for (size_t s = 0; s < batch.sequences.size(); ++s)
        std::fill(sequence_of.begin() + batch.term_begins[s], sequence_of.begin() + batch.term_begins[s + 1],
                  static_cast<int32_t>(s));
    const Lists by = lists_of(targets_of, batch.targets.size());
    bring(ctx, terms.begins, batch.term_begins);
    bring(ctx, terms.targets, targets_of);
    bring(ctx, terms.weights, batch.term_weights);
    put(ctx, terms.sequences, sequence_of);
    put(ctx, terms.of_targets.begins, by.begins);
    put(ctx, terms.of_targets.terms, by.entries);
    put(ctx, lengths, lengths_of(batch));
}

void DeviceBatch::fill_pairs(const Context& ctx, const Batch& batch) const {
    int64_t without = 0;
    for (size_t s = 0; s + 1 < batch.pair_begins.size(); ++s)
        without += batch.pair_begins[s] == batch.pair_begins[s + 1] ? 1 : 0;
    if (without > 0)
        fail(Exit::data, "{} of {} samples of a batch have no pair of answers to compare", without, batch.samples);
    std::vector<int32_t> both;
    for (const AnswerPair& pair : batch.pairs)
        for (const int32_t sequence : {pair.better, pair.worse}) {
            if (batch.term_begins[static_cast<size_t>(sequence)] ==
                batch.term_begins[static_cast<size_t>(sequence) + 1])
                fail(Exit::data, "an answer of a preference pair has no token with a loss");
            both.push_back(sequence);
        }
    const Lists sides = lists_of(both, batch.sequences.size());
    put(ctx, pairs.pairs, both);
    put(ctx, pairs.weights, weights_of(batch.pairs));
    put(ctx, pairs.begins, sides.begins);
    put(ctx, pairs.sides, sides.entries);
    if (!batch.reference.empty()) put(ctx, reference, batch.reference);
}

void DeviceBatch::fill_policy(const Context& ctx, const Batch& batch) {
    std::vector<float> of_terms(batch.term_targets.size());
    for (size_t s = 0; s < batch.sequences.size(); ++s)
        std::fill(of_terms.begin() + batch.term_begins[s], of_terms.begin() + batch.term_begins[s + 1],
                  batch.advantages[s]);
    put(ctx, advantages, of_terms);
    const auto given = [&](Tensor& to, const std::vector<float>& logps) {
        logps.empty() ? void(to = {}) : bring(ctx, to, logps);
    };
    given(old, batch.logps.old);
    given(sampled, batch.logps.sampled);
    if (!batch.logps.reference.empty()) put(ctx, reference, batch.logps.reference);
    bring(ctx, rewards, batch.rewards);
}

void DeviceBatch::fill_labels(const Context& ctx, const Batch& batch) const {
    const size_t count = batch.sequences.size();
    if (batch.samples != std::ssize(batch.sequences))
        fail(Exit::data, "a batch of {} samples has {} answers: each label is for one", batch.samples, count);
    std::vector<int32_t> of_answers(count);
    for (size_t s = 0; s < count; ++s) {
        if (batch.term_begins[s] == batch.term_begins[s + 1])
            fail(Exit::data, "a labelled answer has no token with a loss");
        const float advantage = batch.advantages[s];
        if (advantage != 1 && advantage != -1 && advantage != 0)
            fail(Exit::data, "a labelled answer has the advantage {}, expected 1 (desirable) or -1", advantage);
        const AnswerLabel label = advantage > 0 ? AnswerLabel::desirable : AnswerLabel::undesirable;
        of_answers[s] = advantage == 0 ? -1 : static_cast<int32_t>(label);
    }
    put(ctx, labels, of_answers);
    if (!batch.reference.empty()) put(ctx, reference, batch.reference);
}

void DeviceBatch::fill_teacher(const Context& ctx, const ModelConfig& config, const Batch& batch) const {
    const TeacherLists& lists = batch.teacher;
    if (lists.tokens() != std::ssize(batch.targets))
        fail(Exit::data, "a batch of stage distill has {} targets, and lists of a teacher for {}", batch.targets.size(),
             lists.tokens());
    check_ids("entry of a teacher's lists", lists.ids, config.vocab_size);
    const auto width = static_cast<size_t>(teacher_ids.size(1));
    std::vector<int32_t> ids(batch.targets.size() * width, -1);
    std::vector<float> log_probs(ids.size(), 0);
    for (size_t target = 0; target < batch.targets.size(); ++target) {
        const int64_t begin = lists.begins[target], count = lists.length_of(static_cast<int64_t>(target));
        const auto to = static_cast<std::ptrdiff_t>(target * width);
        std::copy_n(lists.ids.begin() + begin, count, ids.begin() + to);
        std::copy_n(lists.log_probs.begin() + begin, count, log_probs.begin() + to);
    }
    put(ctx, teacher_ids, ids);
    put(ctx, teacher_log_probs, log_probs);
}

void DeviceBatch::fill_rankings(const Context& ctx, const Batch& batch) {
    const size_t count = batch.sequences.size();
    std::vector<int32_t> order(count), last(count), begins(1), both;
    std::iota(order.begin(), order.end(), 0);
    const auto row_of = [&](int32_t s) { return batch.sequences[static_cast<size_t>(s)].last_row; };
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return row_of(a) < row_of(b); });
    score_order.resize(count);
    for (size_t place = 0; place < count; ++place) {
        last[place] = row_of(order[place]);
        if (last[place] < 0) fail(Exit::data, "an answer of a ranking has no token");
        score_order[static_cast<size_t>(order[place])] = static_cast<int32_t>(place);
    }
    for (size_t s = 0; s < count; ++s)
        if (s + 1 == count || batch.sequences[s + 1].sample != batch.sequences[s].sample)
            begins.push_back(static_cast<int32_t>(s + 1));
    std::vector<float> of_pairs;
    for (const AnswerPair& pair : batch.pairs) {
        both.insert(both.end(), {pair.better, pair.worse});
        of_pairs.push_back(pair.margin);
    }
    put(ctx, input.rows, last);
    put(ctx, places, score_order);
    put(ctx, sample_begins, begins);
    put(ctx, pairs.pairs, both);
    put(ctx, pair_begins, batch.pair_begins);
    put(ctx, margins, of_pairs);
    put(ctx, pairs.weights, weights_of(batch.pairs));
}

}  // namespace colonnade
