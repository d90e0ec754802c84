#pragma once
// The README.md of an exported folder: a model card as the Hugging Face hub reads it. Its front matter names base model,
// data sets, license of the base, library and tags; its text how the model was made. Since such folders are published,
// it has no paths of this machine: models and data sets are named by their names on a hub, else by their file names.

#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/objectives/metric.h"

namespace colonnade {

struct TrainingFacts {
    int64_t step = 0;       ///< of the exported model
    int64_t last_step = 0;  ///< of the run
    int64_t tokens = 0, samples = 0;
    int64_t packs_per_step = 0, ranks = 1;
    int64_t parameters = 0;  ///< trained
    std::string device{};
    std::vector<Metric> metrics{};  ///< of the exported model, as evaluation names them; may be empty
};

enum class CardOf { model, adapters };

std::string model_card(const Config& config, const TrainingFacts& facts, CardOf kind);

/// Writes it to <folder>/README.md. Returns false, and writes nothing, if the README.md there is not such a card.
/// Throws Exit::storage.
bool write_model_card(const std::string& folder, const std::string& card);

/// The lines of a README.md's front matter that tell its licence ("license: apache-2.0", also license_name and
/// license_link). Anything but plain words is left out. Empty if the folder has none.
std::string license_lines(const std::string& folder);

}  // namespace colonnade
