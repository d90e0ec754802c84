#pragma once
// What the script of the page draws, as JSON that stays small: a token's text is there once, and a list of numbers is
// written in runs if that is shorter.
//
//     tokens   {ids: [..], texts: [..], special: [entries that are]}: other lists name a token by its entry here
//     row      null, or {number, length, tokens, positions, weights, samples, sequences, users}
//     masks    [{name, causal, rows, columns, lts, lte, uts, ute, window, positions, visible, tile, classes}]
//     samples  [{place, size, notes, sequences: [{name, shared, weights, rows, tokens}]}]
//
// Lists of numbers are [a, b, ..] or {runs: [first, count, step, ..]} with steps of 0 or 1. A mask always has its four
// vectors, with defaults filled in. Its classes are a text per row of tiles, "3#1/12.". A sequence has no list of tokens
// if they are those at its rows of the packed row.

#include "engine/io/json.h"
#include "train/inspect/inspection.h"

namespace colonnade {

Json inspection_json(const Inspection& inspection);

}  // namespace colonnade
