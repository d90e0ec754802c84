#pragma once
// HubCache: the folder of one repository in the cache that Hugging Face's programs share, in the layout of
// huggingface_hub 2 (what it downloads is found here, and the reverse):
//
//     models--org--name/                            or datasets--org--name
//       refs/main                                   the commit of a branch or tag
//       blobs/<hash>                                a file's bytes; HubFile::blob()
//       blobs/<hash>.incomplete                     the first part of them, downloaded under the lock
//       snapshots/<commit>/path -> ../../blobs/<hash>
//       trees/<commit>.json                         the list of all files, {"format_version": 1, "files": {...}}
//     .locks/models--org--name/<hash>.lock          flock; never deleted

#include <functional>

#include "engine/hub/hub_api.h"

namespace colonnade {

class HubCache {
  public:
    HubCache(const HubSettings& settings, const HubName& name);

    const std::string& folder() const { return folder_; }
    std::string snapshot(const std::string& commit) const { return folder_ + "/snapshots/" + commit; }
    std::string blob(const HubFile& file) const { return folder_ + "/blobs/" + file.blob(); }
    std::string incomplete(const HubFile& file) const { return blob(file) + ".incomplete"; }

    /// The commit that `revision` had when it was last looked up: itself if it is a commit; empty: unknown.
    std::string commit_of(const std::string& revision) const;
    void write_ref(const std::string& revision, const std::string& commit) const;

    /// Nothing if there is none that can be read.
    std::optional<std::vector<HubFile>> read_tree(const std::string& commit) const;
    void write_tree(const std::string& commit, const std::vector<HubFile>& files) const;
    /// What lies in the snapshot, without hashes.
    std::vector<HubFile> files_of_snapshot(const std::string& commit) const;

    /// Whether the snapshot has the file, with its size.
    bool has(const std::string& commit, const HubFile& file) const;
    bool has_blob(const HubFile& file) const;
    /// Makes the snapshot's entry of a file whose blob is complete.
    void link(const std::string& commit, const HubFile& file) const;

    /// Makes the folders.
    void create() const;

    /// Lock of a blob among processes and threads.
    class Lock {
      public:
        /// Waits for it; calls `waits` about every 0.2 seconds, which may throw.
        Lock(const HubCache& cache, const HubFile& file, const std::function<void()>& waits);
        ~Lock();
        Lock(const Lock&) = delete;
        Lock& operator=(const Lock&) = delete;

      private:
        int fd_ = -1;
    };

  private:
    std::string cache_, folder_, locks_;
};

}  // namespace colonnade
