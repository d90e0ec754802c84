#pragma once
// A hub for tests: one repository, org/name, at one commit, with the interface of huggingface.co, and with faults.

#include <deque>

#include "engine/io/json.h"
#include "engine/io/sha256.h"
#include "tests/support/http_server.h"

namespace colonnade {

inline std::string git_blob_sha1(const std::string& content) {
    Sha1 hash;
    const std::string head = fmt::format("blob {}", content.size());
    hash.update(head.c_str(), head.size() + 1);
    hash.update(content.data(), content.size());
    return hash.hex();
}

class FakeHub {
  public:
    static constexpr const char* first_commit = "0123456789abcdef0123456789abcdef01234567";

    FakeHub() : server([this](const WebRequest& request) { return answer(request); }) {}

    std::string kind = "models", repository = "org/name", commit = first_commit;
    bool both_kinds = false;                   ///< the same files as a model and as a data set
    std::map<std::string, std::string> files;  ///< path -> content
    size_t lfs_from = 1000;                    ///< bytes from which a file is in LFS, on the other host
    size_t page = 1000;                        ///< entries
    bool ranges = true;
    /// Answers that come before the right ones, by a part of the path of the request. Given the right one.
    std::map<std::string, std::deque<std::function<WebReply(WebReply)>>> faults;
    std::string tree_json;  ///< instead of the right one
    WebServer server;       // last: it starts when all else exists

    void fault(const std::string& part, std::function<WebReply(WebReply)> change, int times = 1) {
        const std::lock_guard lock(mutex_);
        for (int i = 0; i < times; ++i) faults[part].push_back(change);
    }
    static WebReply error(int status, const std::string& code = "", const std::string& message = "") {
        WebReply reply{.status = status};
        if (!code.empty()) reply.headers.push_back("X-Error-Code: " + code);
        if (!message.empty()) reply.headers.push_back("X-Error-Message: " + message);
        return reply;
    }
    /// Requests whose path has this part.
    std::vector<WebRequest> requests(const std::string& part) const {
        std::vector<WebRequest> found;
        for (const WebRequest& request : server.requests())
            if (request.path.find(part) != request.path.npos) found.push_back(request);
        return found;
    }

  private:
    WebReply answer(const WebRequest& request) {
        WebReply right = right_answer(request);
        const std::lock_guard lock(mutex_);
        for (auto& [part, changes] : faults)
            if (request.path.find(part) != request.path.npos && !changes.empty()) {
                const auto change = changes.front();
                changes.pop_front();
                return change(std::move(right));
            }
        return right;
    }

    WebReply right_answer(const WebRequest& request) {
        const bool data = request.path.starts_with("/api/datasets/") || request.path.starts_with("/datasets/");
        const std::string of_request = both_kinds ? data ? "datasets" : "models" : kind;
        const std::string api = "/api/" + of_request + "/" + repository,
                          at = (of_request == "models" ? "/" : "/datasets/") + repository;
        const std::string resolve = at + "/resolve/" + commit + "/";
        if (request.path.starts_with(api + "/revision/")) {
            const std::string revision = request.path.substr((api + "/revision/").size());
            if (revision != "main" && revision != commit && revision != "refs%2Fpr%2F1")
                return error(404, "RevisionNotFound");
            return {.body = Json({{"sha", commit}}).dump()};
        }
        if (request.path.starts_with(api + "/tree/" + commit)) return tree(request);
        if (request.path.starts_with("/cdn/")) {
            if (request.headers.contains("authorization")) return error(400, "", "two ways of authorization");
            return content(files.at(request.path.substr(5)), request);
        }
        if (request.path.starts_with(resolve)) {
            const std::string path = request.path.substr(resolve.size());
            if (!files.contains(path)) return error(404, "EntryNotFound");
            if (files[path].size() < lfs_from) return content(files[path], request);
            return {.status = 302, .headers = {"Location: " + server.other_host() + "/cdn/" + path}};
        }
        return error(404, "RepoNotFound");
    }

    WebReply tree(const WebRequest& request) {
        if (!tree_json.empty()) return {.body = tree_json};
        const size_t cursor = request.path.find("&cursor=");
        const size_t begin = cursor == request.path.npos ? 0 : std::stoul(request.path.substr(cursor + 8));
        Json entries = Json::array();
        size_t i = 0;
        for (const auto& [path, bytes] : files)
            if (i++ >= begin && entries.size() < page) {
                Json entry = {{"type", "file"}, {"oid", git_blob_sha1(bytes)}, {"size", bytes.size()}, {"path", path}};
                if (bytes.size() >= lfs_from)
                    entry["lfs"] = {{"oid", sha256(bytes)}, {"size", bytes.size()}, {"pointerSize", 130}};
                entries.push_back(entry);
            }
        WebReply reply{.body = entries.dump()};
        if (begin + page < files.size())
            reply.headers.push_back(fmt::format("Link: <{}{}&cursor={}>; rel=\"next\"", server.url(),
                                                request.path.substr(0, cursor), begin + page));
        return reply;
    }

    WebReply content(const std::string& bytes, const WebRequest& request) const {
        const auto range = request.headers.find("range");
        if (range == request.headers.end() || !ranges) return {.body = bytes};
        const size_t from = std::stoul(range->second.substr(6));
        if (from >= bytes.size()) return {.status = 416};
        return {.status = 206,
                .headers = {fmt::format("Content-Range: bytes {}-{}/{}", from, bytes.size() - 1, bytes.size())},
                .body = bytes.substr(from)};
    }

    std::mutex mutex_;
};

}  // namespace colonnade
