#pragma once
// build_store: tokenises data files into a TokenStore, once. The store of a split is the file
//
//     <folder>/<name>-<first 16 hex digits of the key>.h5
//     key = SHA-256(store format, kind of rows, every data set's settings but its weight, every data file's path and
//                   content hash, tokenizer hash, every field of EncodeOptions and RewardSettings)
//
// A change of anything that could change a token gives another file; an unchanged request finds its file again. To
// build a store, each of `threads` workers takes the next block of rows, parses and encodes it; blocks are appended in
// the order of the files. Neither the result nor the error depends on the number of threads. Advantages of scored rows
// are computed when all rows are read, and stored with the answers. What a teacher says about tokens is written to a
// file of the same name that ends in .teacher (data/store/teacher_file.h), while the rows are read.

#include <memory>
#include <string>
#include <vector>

#include "data/rows/rows.h"
#include "data/samples/encode.h"
#include "data/store/mismatched_answers.h"
#include "data/store/score_table.h"
#include "data/store/store.h"
#include "data/store/teacher_file.h"
#include "data/text/tokenizer.h"
#include "engine/io/progress.h"

namespace colonnade {

struct StoreRequest {
    std::string name = "train";         ///< of the split; the file's name begins with it
    std::string folder;                 ///< `prepared_path`; created if it is missing
    std::vector<DatasetSpec> datasets;  ///< concatenated in this order
    /// The template of each data set; none, or null: that of `encode`.
    std::vector<std::shared_ptr<const ChatTemplate>> chat_templates;
    RowKind rows = RowKind::texts;
    std::shared_ptr<const Tokenizer> tokenizer;  ///< null: only rows of input_ids
    EncodeOptions encode;
    RewardSettings rewards{};  ///< of scored rows
    int threads = 1;
    ProgressOptions progress;  ///< how to report progress; label, unit and total are filled in
};

struct StoreResult {
    TokenStore store;
    std::string path, key;
    bool reused = false;  ///< the file existed: nothing was tokenised
    double seconds = 0;   ///< spent reading, encoding and appending; 0 when reused
    double tokens_per_second = 0;
    /// Of the store's leading sequences, if the samples of a row share what they begin with; empty if not.
    PrefixOrder prefixes{};
    /// Of stage kto; empty if not.
    MismatchedAnswers mismatched{};
    /// Of stage distill; null if not.
    std::shared_ptr<const TeacherFile> teacher{};

    /// Tokens of a row that each sample takes, for the packer.
    std::vector<int64_t> row_lengths() const { return mismatched.row_lengths(store); }
};

/// Opens the store of this request, or builds it. Throws Exit::data for bad rows (path:line), for a damaged store, for
/// a data file that changes meanwhile and if no sample is left; Exit::storage if the store cannot be written.
StoreResult build_store(const StoreRequest& request);

}  // namespace colonnade
