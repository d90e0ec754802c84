#pragma once
// From JSONL files to a TokenStore, once. The store of a split lives at
//
//     <folder>/<name>-<first 16 hex digits of the key>.h5
//     key = SHA-256(store format, kind of rows, every data file's path, type, columns and content hash, tokenizer hash,
//     every EncodeOptions field)
//
// so that a change of anything that could change a token gives another file, and an unchanged request finds its file
// again. Building: whoever of `threads` workers is free takes the next block of lines, parses and encodes it; blocks
// are appended in the order of the files. The result, and the error where there is one, do not depend on the number of
// threads.

#include <memory>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "data/samples/encode.h"
#include "data/store/store.h"
#include "data/text/tokenizer.h"
#include "engine/io/progress.h"

namespace colonnade {

struct StoreRequest {
    std::string name = "train";         ///< of the split; begins the file's name
    std::string folder;                 ///< `prepared_path`; made where it is missing
    std::vector<DatasetSpec> datasets;  ///< concatenated in this order
    RowKind rows = RowKind::texts;
    std::shared_ptr<const Tokenizer> tokenizer;  ///< null: pre-tokenised rows only
    EncodeOptions encode;
    int threads = 1;
    ProgressOptions progress;  ///< where to tell progress; label, unit and total are filled in
};

struct StoreResult {
    TokenStore store;
    std::string path, key;
    bool reused = false;  ///< found under its key: nothing was tokenised
    double seconds = 0;   ///< spent reading, encoding and appending; 0 when reused
    double tokens_per_second = 0;
};

/// Opens the store of this request, or builds it. Throws Exit::data for bad rows (path:line), for a damaged store, for
/// a data file that changes meanwhile and where no sample is left; Exit::storage where the store cannot be written.
StoreResult build_store(const StoreRequest& request);

}  // namespace colonnade
