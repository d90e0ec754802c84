#include "engine/hub/hub_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "engine/io/files.h"
#include "engine/io/json_keys.h"
#include "engine/io/system_call.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

void make_place(const std::string& folder) {
    try {
        make_folders(folder);
    } catch (const Error& e) {
        fail(e.exit(), "{}; HF_HOME chooses another place for downloads", e.what());
    }
}

/// Size of a regular file, also behind a link; nothing if there is none.
std::optional<uint64_t> size_of(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
    return static_cast<uint64_t>(info.st_size);
}

}  // namespace

HubCache::HubCache(const HubSettings& settings, const HubName& name) : cache_(settings.cache) {
    std::string folder = name.kind == RepositoryKind::model ? "models" : "datasets";
    for (size_t begin = 0, end = 0; end != name.repository.npos; begin = end + 1) {
        end = name.repository.find('/', begin);
        folder += "--" + name.repository.substr(begin, end == name.repository.npos ? end : end - begin);
    }
    folder_ = cache_ + "/" + folder;
    locks_ = cache_ + "/.locks/" + folder;
}

std::string HubCache::commit_of(const std::string& revision) const {
    if (is_commit(revision)) return revision;
    const std::string path = folder_ + "/refs/" + revision;
    if (!size_of(path)) return {};
    std::string commit = read_file(path, limits::kib);
    while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back()))) commit.pop_back();
    return is_commit(commit) ? commit : "";
}

void HubCache::write_ref(const std::string& revision, const std::string& commit) const {
    if (is_commit(revision) || commit_of(revision) == commit) return;
    const std::string path = folder_ + "/refs/" + revision;
    make_place(fs::path(path).parent_path());
    write_file_atomically(path, commit);
}

std::optional<std::vector<HubFile>> HubCache::read_tree(const std::string& commit) const {
    const std::string path = folder_ + "/trees/" + commit + ".json";
    if (!size_of(path)) return {};
    std::vector<HubFile> files;
    try {
        const Json tree =
            read_json_file(path, {.bytes = limits::hub_pages * limits::mib, .depth = limits::hub_json_depth});
        const JsonKeys keys(tree, path);
        if (keys.integer("format_version") != 1 || !keys.find("files")) return {};
        for (const auto& [name, entry] : keys.find("files")->items()) {
            const JsonKeys of_file(entry, path);
            HubFile file{.path = name,
                         .size = static_cast<uint64_t>(of_file.integer("size", {}, {.low = 0})),
                         .oid = of_file.text("blob_id"),
                         .sha256 = of_file.text("lfs_sha256", ""),
                         .xet_hash = of_file.text("xet_hash", "")};
            if (!file.sha256.empty())
                file.size =
                    static_cast<uint64_t>(of_file.integer("lfs_size", static_cast<int64_t>(file.size), {.low = 0}));
            const bool hashes = is_hex(file.oid, 40) && (file.sha256.empty() || is_hex(file.sha256, 64));
            if (!is_inside(name) || !hashes) return {};
            files.push_back(std::move(file));
        }
    } catch (const Error&) {
        return {};  // the hub is asked again
    }
    return files;
}

void HubCache::write_tree(const std::string& commit, const std::vector<HubFile>& files) const {
    Json entries = Json::object();
    for (const HubFile& file : files) {
        Json& entry = entries[file.path] = {{"size", file.size}, {"blob_id", file.oid}};
        if (!file.sha256.empty()) entry["lfs_sha256"] = file.sha256, entry["lfs_size"] = file.size;
        if (!file.xet_hash.empty()) entry["xet_hash"] = file.xet_hash;
    }
    make_place(folder_ + "/trees");
    write_file_atomically(folder_ + "/trees/" + commit + ".json",
                          Json({{"format_version", 1}, {"files", std::move(entries)}}).dump(2));
}

std::vector<HubFile> HubCache::files_of_snapshot(const std::string& commit) const {
    std::vector<HubFile> files;
    const fs::path root = snapshot(commit);
    std::error_code error;
    for (fs::recursive_directory_iterator at(root, error), end; !error && at != end; at.increment(error)) {
        if (files.size() > limits::hub_files)
            fail(Exit::data, "{}: more than {} files", root.string(), limits::hub_files);
        if (const auto size = size_of(at->path()))
            files.push_back({.path = at->path().lexically_relative(root), .size = *size});
    }
    return files;
}

bool HubCache::has(const std::string& commit, const HubFile& file) const {
    return size_of(snapshot(commit) + "/" + file.path) == file.size;
}

bool HubCache::has_blob(const HubFile& file) const {
    return size_of(blob(file)) == file.size;
}

void HubCache::link(const std::string& commit, const HubFile& file) const {
    if (has(commit, file)) return;
    const fs::path path = snapshot(commit) + "/" + file.path;
    make_place(path.parent_path());
    const fs::path target = fs::path(blob(file)).lexically_relative(path.parent_path());
    const std::string temporary = fmt::format("{}.tmp-{}", path.string(), ::getpid());
    ::unlink(temporary.c_str());
    // A file system without links gets the file itself.
    const bool linked = ::symlink(target.c_str(), temporary.c_str()) == 0;
    if (!linked && errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) refused("link", path);
    const std::string from = linked ? temporary : blob(file);
    if (::rename(from.c_str(), path.c_str()) != 0) refused("create", path);
}

void HubCache::create() const {
    for (const char* part : {"/blobs", "/refs", "/snapshots"}) make_place(folder_ + part);
    make_place(locks_);
    const std::string tag = cache_ + "/CACHEDIR.TAG";
    if (!size_of(tag))
        write_file_atomically(tag,
                              "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# A cache of files of a hub. https://bford.info/cachedir/ explains this tag.\n");
}

HubCache::Lock::Lock(const HubCache& cache, const HubFile& file, const std::function<void()>& waits) {
    const std::string path = cache.locks_ + "/" + file.blob() + ".lock";
    fd_ = uninterrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664); });
    if (fd_ < 0) refused("create", path);
    try {
        while (uninterrupted([&] { return ::flock(fd_, LOCK_EX | LOCK_NB); }) != 0) {
            if (errno == ENOSYS || errno == EOPNOTSUPP) break;  // a file system without locks
            if (errno != EWOULDBLOCK) refused("lock", path);
            waits();
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
        }
    } catch (...) {
        ::close(fd_);
        throw;
    }
}

HubCache::Lock::~Lock() {
    ::close(fd_);
}

}  // namespace colonnade
