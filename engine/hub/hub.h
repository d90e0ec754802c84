#pragma once
// fetch: a repository's files as a folder of this machine, from the cache or from the hub.

#include "engine/hub/hub_api.h"

namespace colonnade {

struct HubRequest {
    HubName name;
    /// Chooses the files that matter, by path. Throws Exit::data if there are none.
    std::function<std::vector<std::string>(const std::vector<HubFile>&)> choose;
};

struct HubSnapshot {
    std::string folder;  ///< has the chosen files; others may lie beside them
    std::string commit;
    std::vector<std::string> chosen{};  ///< paths inside the folder
    std::vector<std::string> notices{};
};

/// A commit whose files are all in the cache costs no request; a branch or a tag costs one, which looks up its commit. If
/// the hub cannot be reached, the commit of the last look-up is taken, with a notice. Throws Exit::data for what the hub
/// refuses or lacks, Exit::storage for a disk that is full.
HubSnapshot fetch(const HubSettings& settings, const HubRequest& request);

}  // namespace colonnade
