#pragma once
// HubApi: what a hub says about one repository, by the interface of huggingface.co:
//
//     GET /api/models/ORG/NAME/revision/REV                  {"sha": commit, ...}
//     GET /api/models/ORG/NAME/tree/COMMIT?recursive=true    [{"type", "path", "size", "oid", "lfs": {"oid", "size"}}], in pages
//     GET /ORG/NAME/resolve/COMMIT/PATH                      the bytes, often by a redirect to another host
//
// (for data sets /api/datasets and /datasets). Its answers are of unknown origin: sizes are bounded, a path must stay
// inside the repository, hashes must be hashes.

#include <vector>

#include "engine/hub/http.h"
#include "engine/hub/hub_name.h"

namespace colonnade {

struct HubFile {
    std::string path;
    uint64_t size = 0;
    std::string oid{};       ///< SHA-1 of the git blob: of the file, or of its LFS pointer
    std::string sha256{};    ///< of the file; empty if git keeps it itself
    std::string xet_hash{};  ///< kept for huggingface_hub

    /// The name in the cache's blobs: the hash that the bytes must have.
    const std::string& blob() const { return sha256.empty() ? oid : sha256; }
};

/// A page of the tree. Throws Exit::data, beginning with `where`.
std::vector<HubFile> parse_tree(std::string_view json, const std::string& where);

class HubApi {
  public:
    HubApi(const HubSettings& settings, HubName name);

    /// The commit of the name's revision. Nothing if the hub cannot be reached in `tries`; `failure` then says why.
    std::optional<std::string> find_commit(int tries, std::string& failure);
    std::vector<HubFile> tree(const std::string& commit);
    std::string file_url(const std::string& commit, const std::string& path) const;

    /// Throws Exit::data for an answer that is final. `what`: the file or thing that was asked for.
    [[noreturn]] void refuse(const HttpAnswer& answer, const std::string& what) const;

  private:
    HttpAnswer get(const std::string& url, int tries);

    const HubSettings& settings_;
    HubName name_;
    Http http_;
};

}  // namespace colonnade
