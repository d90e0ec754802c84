#pragma once
// Inspection: what `inspect` shows. A packed row of a run with its samples, token by token, and what is suspicious about
// the data; or a mask alone. The terminal, the PNG picture and the HTML page all draw this.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "attention/mask.h"
#include "train/report/pictures.h"

namespace colonnade {

/// One sequence of a sample: a whole text as the model reads it. All vectors have an entry per token.
struct InspectedSequence {
    std::string name{};                ///< "chosen", "rejected", "answer 2", "turn 1"; empty if the sample has one
    int64_t shared = 0;                ///< first tokens in common with the sequence before it
    std::vector<int32_t> ids{};        ///< of the tokens
    std::vector<std::string> texts{};  ///< what each adds to the text; joined they are the text, in UTF-8
    std::vector<uint8_t> special{};    ///< 1: the tokenizer calls it special, as "<|im_end|>"; may be empty
    std::vector<float> weights{};      ///< in the loss; 0: not learned
    std::vector<int32_t> rows{};       ///< of the packed row; empty if the sample is not part of it
};

struct InspectedSample {
    std::string place{};               ///< "chats.jsonl:3"
    int64_t tokens = 0;                ///< of its tree
    std::vector<std::string> notes{};  ///< labels of InspectedNote
    std::vector<InspectedSequence> sequences{};
};

/// What was noted about rows of the data.
struct InspectedNote {
    std::string effect{};  ///< "suspicious", "dropped" or "changed"
    std::string label{};   ///< "no end token"
    std::string meaning{};
    int64_t rows = 0;                   ///< all of them
    std::vector<std::string> places{};  ///< the first ones
};

/// The packed row. Vectors have an entry per token of its length; padding belongs to no sample.
struct InspectedRow {
    int64_t number = 0, of = 0;  ///< counted from 1, in the first epoch
    int64_t real_tokens = 0;     ///< without padding
    std::vector<int32_t> ids{};  ///< padding is 0
    std::vector<std::string> texts{};
    std::vector<int32_t> positions{};
    std::vector<double> weights{};     ///< in the loss, summed over the sequences that learn the token
    std::vector<int32_t> samples{};    ///< index of the sample that placed the token; -1: padding
    std::vector<int32_t> sequences{};  ///< number of the sequence within that sample
    std::vector<int32_t> users{};      ///< how many sequences have the token; more than 1: it is shared
};

/// A mask as it is drawn: exact by the column, and in tiles.
struct InspectedMask {
    std::string name{};  ///< "causal_document", "layers 1, 3, 5: window 1024", or empty
    ColumnMask mask{};   ///< one batch, one head
    TilePicture tiles{};
    double visible = 0;  ///< part of all pairs
};

struct Inspection {
    std::string title{};
    std::vector<std::pair<std::string, std::string>> facts{};  ///< name, value: model, stage, lengths, fill
    InspectedRow row{};                                        ///< without tokens if a mask alone is shown
    std::vector<InspectedMask> masks{};                        ///< of the row, by kind of layer; or those asked for
    std::vector<InspectedSample> samples{};                    ///< those of the row first, then suspicious ones
    size_t shown = 0;                                          ///< the sample to begin with, an index
    std::vector<InspectedNote> notes{};
    std::vector<Bin> lengths{};                            ///< tokens of all samples
    std::vector<std::vector<std::string>> length_table{};  ///< a head and a line: min, p5, ..., max
    std::vector<std::vector<std::string>> fill_table{};    ///< a head and lines: way of packing, rows, fill
};

}  // namespace colonnade
