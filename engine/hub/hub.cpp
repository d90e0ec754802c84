#include "engine/hub/hub.h"

#include <unistd.h>

#include <algorithm>
#include <map>

#include "engine/device/error.h"
#include "engine/device/terminal.h"
#include "engine/hub/download.h"

namespace colonnade {
namespace {

/// The files that are chosen, of a list.
std::vector<HubFile> chosen_files(const HubRequest& request, const std::vector<HubFile>& files) {
    std::map<std::string, const HubFile*> by_path;
    for (const HubFile& file : files) by_path[file.path] = &file;
    std::vector<HubFile> chosen;
    for (const std::string& path : request.choose(files)) chosen.push_back(*by_path.at(path));
    return chosen;
}

std::vector<HubFile> missing_files(const HubCache& cache, const std::string& commit, std::vector<HubFile> files) {
    std::erase_if(files, [&](const HubFile& file) { return cache.has(commit, file); });
    return files;
}

HubSnapshot snapshot_of(const HubCache& cache, const std::string& commit, const std::vector<HubFile>& files) {
    HubSnapshot snapshot{.folder = cache.snapshot(commit), .commit = commit};
    for (const HubFile& file : files) snapshot.chosen.push_back(file.path);
    return snapshot;
}

/// What the cache has without a connection. A snapshot of an older program has no list of files: then what lies in it
/// counts as all.
HubSnapshot fetch_offline(const HubCache& cache, const HubRequest& request, const std::string& commit,
                          const std::string& why) {
    const std::string name = request.name.text();
    if (commit.empty())
        fail(Exit::data, "{}: is no path of this machine, is not in {}, and {}", name, cache.folder(), why);
    const auto tree = cache.read_tree(commit);
    const std::vector<HubFile> there = tree ? *tree : cache.files_of_snapshot(commit);
    if (there.empty()) fail(Exit::data, "{}: {} has nothing of commit {}, and {}", name, cache.folder(), commit, why);
    const std::vector<HubFile> files = chosen_files(request, there);
    const std::vector<HubFile> missing = missing_files(cache, commit, files);
    if (!missing.empty())
        fail(Exit::data, "{}: {} lacks {} of {} files, such as {}, and {}", name, cache.snapshot(commit),
             missing.size(), files.size(), missing.front().path, why);
    return snapshot_of(cache, commit, files);
}

}  // namespace

HubSnapshot fetch(const HubSettings& given, const HubRequest& request) {
    HubSettings settings = given;
    if (!settings.say)
        settings.say = [](const std::string& line) {
            fmt::print(stderr, "{}\n", for_terminal("note: " + line, STDERR_FILENO, 4));
        };
    const HubName& name = request.name;
    const HubCache cache(settings, name);
    std::string commit = cache.commit_of(name.revision), failure;
    if (settings.offline) return fetch_offline(cache, request, commit, "HF_HUB_OFFLINE is on");
    HubApi api(settings, name);
    if (!is_commit(name.revision)) {
        const auto found = api.find_commit(commit.empty() ? settings.tries : 1, failure);
        if (!found) {
            const std::string why = fmt::format("{} cannot be reached ({})", settings.endpoint, failure);
            HubSnapshot snapshot = fetch_offline(cache, request, commit, why);
            snapshot.notices.push_back(fmt::format("{}: {}; the cache's commit {} is used", name.text(), why, commit));
            return snapshot;
        }
        commit = *found;
    }
    auto tree = cache.read_tree(commit);
    const bool listed = tree.has_value();
    if (!listed) tree = api.tree(commit);
    const std::vector<HubFile> files = chosen_files(request, *tree);
    const std::vector<HubFile> missing = missing_files(cache, commit, files);
    if (!listed || !missing.empty()) cache.create();
    if (!listed) cache.write_tree(commit, *tree);
    if (!missing.empty())
        download({.settings = settings, .name = name, .cache = cache, .commit = commit, .files = missing});
    cache.write_ref(name.revision, commit);
    return snapshot_of(cache, commit, files);
}

}  // namespace colonnade
