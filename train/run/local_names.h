#pragma once
// LocalNames: from names of models and data to paths of this machine. A path that exists, and one that begins with `~`,
// stays what it is. A name of a hub (engine/hub/hub_name.h) is looked up in the cache of Hugging Face's programs, else
// downloaded into it. Of a model only the files are taken that Colonnade reads; of a data set the files of the split.
//
//     model       org/name, org/name@revision        a folder with config.json, weights, tokenizer; or the only GGUF file
//                 org/name/file.gguf, org/name:Q8_0  a GGUF file
//     data set    org/name[@revision][/path]         path: a file, a folder or a glob
//
// With several ranks, rank 0 looks up and downloads first. The others take the same commit; on another machine one rank
// downloads for all that are there.

#include <map>

#include "data/rows/rows.h"
#include "engine/hub/hub.h"
#include "engine/ranks/ranks.h"
#include "train/config/config.h"

namespace colonnade {

/// Which files of a repository are needed.
enum class ModelFiles { whole, tokenizer, adapter };

class LocalNames {
  public:
    explicit LocalNames(const Ranks& ranks = one_rank()) : ranks_(ranks) {}

    std::string model(const std::string& name, ModelFiles files = ModelFiles::whole);
    std::string data(const DatasetSpec& set);
    /// The same for data to train on: without a split, of several train is taken, which settles set.split.
    std::string training_data(DatasetSpec& set);

    /// What came from a hub: path -> org/name@commit[/path].
    const std::map<std::string, std::string>& names() const { return names_; }
    /// One line for each.
    const std::vector<std::string>& notices() const { return notices_; }

  private:
    /// `readme`: of a data set's repository, if the name means the whole of it.
    using Choose =
        std::function<std::vector<std::string>(const std::vector<HubFile>&, const HubName&, const std::string& readme)>;
    std::string find(const std::string& text, RepositoryKind kind, const std::string& use, const Choose& choose);
    std::string find_data(const std::string& path, const std::string& use, const Split& split);

    const Ranks& ranks_;
    std::map<std::string, std::string> known_, names_;
    std::vector<std::string> notices_;
};

/// Replaces every name in the config by a path and fills hub_names. A run that resumes keeps the commits that it began
/// with. Returns notices.
std::vector<std::string> resolve_names(Config& config, const Ranks& ranks = one_rank());

/// The files of a model's repository that are needed. Throws Exit::data if it has none that Colonnade can read.
std::vector<std::string> choose_model_files(const std::vector<std::string>& listed, const HubName& name,
                                            ModelFiles files);

}  // namespace colonnade
