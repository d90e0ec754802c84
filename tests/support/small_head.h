#pragma once
// A head of any size with random inputs, for tests of layers/head_loss.h.

#include "layers/head_loss.h"
#include "tests/support/gradient_check.h"

namespace colonnade {

/// Head and loss with `chunk` rows at a time, and all outputs.
template <typename T>
struct Head {
    int64_t rows, width, vocab, chunk;
    std::vector<T> hidden = random_values<T>(rows * width, 1), weight = random_values<T>(vocab * width, 2);
    std::vector<T> logits = std::vector<T>(static_cast<size_t>(chunk * vocab));
    std::vector<T> dhidden = std::vector<T>(hidden.size()), dweight = std::vector<T>(weight.size());
    std::vector<double> nll = std::vector<double>(static_cast<size_t>(rows));
    std::vector<uint8_t> correct = std::vector<uint8_t>(nll.size());
    std::vector<int32_t> targets;
    std::vector<double> scales;

    Head(int64_t rows_, int64_t width_, int64_t vocab_, int64_t chunk_)
        : rows(rows_), width(width_), vocab(vocab_), chunk(chunk_) {
        for (int32_t i = 0; i < rows; ++i) {
            targets.push_back(static_cast<int32_t>(i * 5 % vocab));
            scales.push_back(i % 3 == 1 ? 0.0 : 0.25 * static_cast<double>(i + 1));
        }
    }
    HeadLoss args() {
        return {.nll = tensor_of(nll, {rows}),
                .correct = tensor_of(correct, {rows}),
                .dhidden = tensor_of(dhidden, {rows, width}),
                .dweight = tensor_of(dweight, {vocab, width}),
                .logits = tensor_of(logits, {chunk, vocab}),
                .hidden = tensor_of(hidden, {rows, width}),
                .weight = tensor_of(weight, {vocab, width}),
                .targets = view_of(targets),
                .scales = view_of(scales)};
    }
    HeadLoss evaluation() {
        HeadLoss a = args();
        a.dhidden = a.dweight = Tensor();
        return a;
    }
};

/// The logits of one row, of hidden width 1.
inline Head<double> one_row(const std::vector<double>& logits) {
    Head<double> head(1, 1, std::ssize(logits), 1);
    head.hidden = {1};
    head.weight = logits;
    head.scales = {1};
    return head;
}

}  // namespace colonnade
