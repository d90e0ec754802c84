#pragma once
// ReportFacts: what a run knows before its first step, for its report: model, data, packing, a mask, the planned memory.
// It is kept as report.json in the run's folder, so that the report can be made again.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "train/report/pictures.h"

namespace colonnade {

/// Rows with one note (data/samples/row_note.h).
struct NoteFact {
    std::string effect{};  ///< changed, dropped or suspicious
    std::string label{};
    int64_t rows = 0;
    std::string first{};  ///< places of the first ones
};

struct FileFact {
    std::string path{}, type{};
    int64_t rows = 0, samples = 0;
};

struct SplitFact {
    std::string name{};  ///< train, eval
    std::vector<FileFact> files{};
    std::vector<NoteFact> notes{};
    int64_t rows = 0, samples = 0, tokens = 0, learned = 0;
    std::vector<Bin> lengths{};  ///< of samples, in tokens
};

struct ReportFacts {
    std::string model{};  ///< one line
    std::string device{};
    std::vector<std::string> given{};  ///< keys that the config has a value for
    std::string plan{};                ///< as `train --plan` prints it
    std::vector<SplitFact> splits{};
    std::vector<std::string> sharing{};  ///< what the samples of a row share, one line each
    // Of the first epoch:
    int64_t packed_rows = 0, packing_length = 0;
    double fill = 0;                                        ///< share of the positions that hold a token
    TilePicture mask{};                                     ///< of the first row of the first batch, in the first layer
    std::vector<std::pair<std::string, int64_t>> memory{};  ///< planned bytes of device and host, by what they are for
    int64_t peak = 0;                                       ///< planned bytes of the device at the peak
    double unigram_loss = 0;                                ///< baseline of the evaluation loss; 0: none
};

/// Throws Exit::storage.
void write_facts(const std::string& output_dir, const ReportFacts& facts);
/// Returns facts without content if the folder has none. Throws Exit::data for a file that is not of this form.
ReportFacts read_facts(const std::string& output_dir);

}  // namespace colonnade
