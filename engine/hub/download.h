#pragma once
// Downloads files of a repository into the cache. A file that was begun is continued, also by another process later.
// The hash of every file is checked: SHA-256 for LFS files, git's SHA-1 for others. Four files come at once.

#include "engine/hub/hub_cache.h"

namespace colonnade {

struct DownloadRequest {
    const HubSettings& settings;
    const HubName& name;
    const HubCache& cache;
    std::string commit;
    std::vector<HubFile> files;
};

/// When it returns, the snapshot has all the files. Throws Exit::data for a hub that refuses, Exit::storage for a disk
/// that does; what was loaded stays for the next start.
void download(const DownloadRequest& request);

}  // namespace colonnade
