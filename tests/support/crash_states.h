#pragma once
// What a disk may hold after a power cut. RecordedFiles records every change below a folder. CrashStates makes, for
// every point of that record, states of the disk that POSIX and Linux file systems allow (as ALICE, Pillai et al., OSDI
// 2014, and SQLite's and LevelDB's tests do):
//
//     fsync of a file      every earlier write to it is on the disk
//     fsync of a folder    every earlier creation, deletion and rename of a name in it is on the disk
//     everything else      is on the disk, is not, or, for a write, is there in some sectors of 512 bytes; one that is
//                          not there holds what it held before, or zeros if only the file's size arrived. Changes
//                          of names are atomic, one by one; they come in any order between folders and within one
//
// A rename between two folders counts as on the disk when the folder that it leads to is fsynced.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/device/philox.h"
#include "engine/io/file_system.h"

namespace colonnade {

/// Contents by path relative to the folder; those of folders, which end in "/", are empty.
using DiskState = std::map<std::string, std::string>;

/// A node is a file or a folder; node 0 is the recorded folder.
struct FileOperation {
    enum class Kind { write, truncate, names, sync, mark } kind;
    int node = 0;         ///< of write, truncate, sync
    uint64_t offset = 0;  ///< of write; truncate: the new size
    std::string bytes{};
    /// Atomic changes of folders: the node that a name leads to from now on; -1: none.
    struct Name {
        int folder;
        std::string name;
        int node;
    };
    std::vector<Name> names{};
};

/// The calls of which a broken program would forget some: for tests of the generator.
enum class Syncs { all, no_files, no_folders };

class RecordedFiles : public FileSystem {
  public:
    /// What is in `root` now is on the disk.
    explicit RecordedFiles(const std::string& root) : root_(std::filesystem::canonical(root)) {
        add_node(true);
        load(root_, 0);
        first_ = nodes_;
    }
    /// A promise holds from here on, such as that a save has returned.
    void mark() { record({.kind = FileOperation::Kind::mark}); }

    struct Node {
        bool folder = false;
        std::string content{};               ///< of a file at the start of the record
        std::map<std::string, int> names{};  ///< of a folder
        uint64_t size = 0;                   ///< of a file now
    };
    const std::vector<Node>& first() const { return first_; }
    const std::vector<FileOperation>& operations() const { return operations_; }
    bool is_folder(int node) const { return nodes_[static_cast<size_t>(node)].folder; }

    int open(const std::string& path, int flags) override {
        const std::lock_guard guard(lock_);
        const int fd = FileSystem::open(path, flags);
        const auto place = find(path);
        if (fd < 0 || !place) return fd;
        int node = place->node;
        if (node < 0) {
            node = add_node(false);
            change({{place->folder, place->name, node}});
        } else if (flags & O_TRUNC) {
            record({.kind = FileOperation::Kind::truncate, .node = node});
            at(node).size = 0;
        }
        open_[fd] = {node, 0, (flags & O_APPEND) != 0};
        return fd;
    }
    int close(int fd) override {
        const std::lock_guard guard(lock_);
        open_.erase(fd);
        return FileSystem::close(fd);
    }
    ssize_t write(int fd, const void* data, size_t bytes) override {
        const std::lock_guard guard(lock_);
        const ssize_t written = FileSystem::write(fd, data, bytes);
        const auto file = open_.find(fd);
        if (written <= 0 || file == open_.end()) return written;
        auto& [node, offset, appends] = file->second;
        if (appends) offset = at(node).size;
        record_write(node, offset, {static_cast<const char*>(data), static_cast<size_t>(written)});
        offset += static_cast<uint64_t>(written);
        return written;
    }
    ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) override {
        const std::lock_guard guard(lock_);
        const ssize_t written = FileSystem::pwrite(fd, data, bytes, offset);
        const auto file = open_.find(fd);
        if (written > 0 && file != open_.end())
            record_write(file->second.node, static_cast<uint64_t>(offset),
                         {static_cast<const char*>(data), static_cast<size_t>(written)});
        return written;
    }
    int ftruncate(int fd, off_t bytes) override {
        const std::lock_guard guard(lock_);
        const int result = FileSystem::ftruncate(fd, bytes);
        if (const auto file = open_.find(fd); result == 0 && file != open_.end()) {
            const auto size = static_cast<uint64_t>(bytes);
            record({.kind = FileOperation::Kind::truncate, .node = file->second.node, .offset = size});
            at(file->second.node).size = size;
        }
        return result;
    }
    /// Only recorded: a test has no power cut.
    int fsync(int fd) override {
        const std::lock_guard guard(lock_);
        if (const auto file = open_.find(fd); file != open_.end())
            record({.kind = FileOperation::Kind::sync, .node = file->second.node});
        return 0;
    }
    int rename(const std::string& from, const std::string& to) override {
        const std::lock_guard guard(lock_);
        const int result = FileSystem::rename(from, to);
        const auto old = find(from), target = find(to);
        if (result == 0 && old && target)
            change({{old->folder, old->name, -1}, {target->folder, target->name, old->node}});
        return result;
    }
    int unlink(const std::string& path) override { return remove(path, FileSystem::unlink(path)); }
    int rmdir(const std::string& path) override { return remove(path, FileSystem::rmdir(path)); }
    int mkdir(const std::string& path) override {
        const std::lock_guard guard(lock_);
        const int result = FileSystem::mkdir(path);
        if (const auto place = find(path); result == 0 && place) change({{place->folder, place->name, add_node(true)}});
        return result;
    }

  private:
    struct Place {
        int folder;
        std::string name;
        int node;
    };
    struct Open {
        int node;
        uint64_t offset;
        bool appends;
    };
    Node& at(int node) { return nodes_[static_cast<size_t>(node)]; }
    int add_node(bool folder) {
        nodes_.push_back({.folder = folder});
        return static_cast<int>(nodes_.size()) - 1;
    }
    void load(const std::filesystem::path& folder, int into) {
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            const int node = add_node(entry.is_directory());
            at(into).names[entry.path().filename()] = node;
            if (entry.is_directory()) {
                load(entry.path(), node);
                continue;
            }
            std::ifstream file(entry.path(), std::ios::binary);
            at(node).content = {std::istreambuf_iterator<char>(file), {}};
            at(node).size = at(node).content.size();
        }
    }
    /// The place of a path below the root; the root itself is node 0.
    std::optional<Place> find(const std::string& path) {
        const std::filesystem::path relative =
            std::filesystem::absolute(path).lexically_normal().lexically_relative(root_);
        Place place{0, "", 0};
        if (relative == ".") return place;
        for (const auto& part : relative) {
            if (part == "..") return {};
            if (part.empty()) continue;
            if (place.node < 0) return {};
            place = {place.node, part, -1};
            const auto& names = at(place.folder).names;
            if (const auto found = names.find(place.name); found != names.end()) place.node = found->second;
        }
        return place;
    }
    void record(FileOperation operation) { operations_.push_back(std::move(operation)); }
    void record_write(int node, uint64_t offset, std::string bytes) {
        at(node).size = std::max<uint64_t>(at(node).size, offset + bytes.size());
        record({.kind = FileOperation::Kind::write, .node = node, .offset = offset, .bytes = std::move(bytes)});
    }
    void change(std::vector<FileOperation::Name> names) {
        for (const auto& [folder, name, node] : names) {
            if (node < 0)
                at(folder).names.erase(name);
            else
                at(folder).names[name] = node;
        }
        record({.kind = FileOperation::Kind::names, .names = std::move(names)});
    }
    int remove(const std::string& path, int result) {
        const std::lock_guard guard(lock_);
        if (const auto place = find(path); result == 0 && place && place->node >= 0)
            change({{place->folder, place->name, -1}});
        return result;
    }

    std::string root_;
    std::mutex lock_;
    std::vector<Node> nodes_, first_;
    std::vector<FileOperation> operations_;
    std::map<int, Open> open_;
};

class CrashStates {
  public:
    CrashStates(const RecordedFiles& files, Syncs syncs = Syncs::all) : files_(files), syncs_(syncs) {}

    /// Checks at least `wanted` states if the record allows as many: after a power cut at every operation, with all,
    /// none, each one alone and all but each one of what is pending, and random choices of it. `check` gets each state
    /// once for each number of marks before it, and returns what is wrong with it, or "".
    struct Result {
        int64_t states = 0;  ///< that differ
        int64_t broken = 0;
        std::string first{};  ///< what was wrong with the first one, and how it came about
    };
    using Check = std::function<std::string(const DiskState&, int64_t marks)>;
    Result run(int64_t wanted, const Check& check) {
        result_ = {}, seen_.clear(), disks_.clear(), check_ = &check;
        const size_t points = files_.operations().size() + 1;
        std::vector<size_t> by_weight;  // a point comes as often as it has sectors and names pending
        for (size_t point = 0; point < points; ++point) {
            systematic(point);
            size_t weight = 0;
            for (const size_t i : pending(point)) weight += 1 + files_.operations()[i].bytes.size() / 512;
            by_weight.insert(by_weight.end(), std::min<size_t>(weight, 50), point);
        }
        for (int64_t tries = 20 * wanted; tries > 0 && result_.states < wanted && !by_weight.empty(); --tries)
            random(by_weight[draw(by_weight.size())]);
        return result_;
    }

  private:
    enum class Fate { kept, lost, torn };
    using Kind = FileOperation::Kind;

    /// The operations before `point` that no fsync has made durable.
    std::vector<size_t> pending(size_t point) const {
        std::set<int> synced;
        std::vector<size_t> found;
        for (size_t i = point; i-- > 0;) {
            const FileOperation& o = files_.operations()[i];
            const Syncs forgotten = files_.is_folder(o.node) ? Syncs::no_folders : Syncs::no_files;
            if (o.kind == Kind::sync && syncs_ != forgotten) synced.insert(o.node);
            const int target = o.kind == Kind::names ? o.names.back().folder : o.node;
            const bool can_be_lost = o.kind == Kind::write || o.kind == Kind::truncate || o.kind == Kind::names;
            if (can_be_lost && !synced.contains(target)) found.push_back(i);
        }
        std::reverse(found.begin(), found.end());
        return found;
    }

    void systematic(size_t point) {
        const std::vector<size_t> open = pending(point);
        for (const Fate all : {Fate::kept, Fate::lost, Fate::torn}) {
            const Fate other = all == Fate::lost ? Fate::kept : Fate::lost;
            std::map<size_t, Fate> fates;
            for (const size_t i : open) fates[i] = all;
            visit(point, fates);
            for (const size_t i : open) {
                fates[i] = other;
                visit(point, fates);
                fates[i] = all;
            }
        }
    }

    void random(size_t point) {
        const uint64_t odds = 1 + draw(9);
        const bool names_arrive = draw(4) > 0;  // what a lost name leads to is not seen
        std::map<size_t, Fate> fates;
        for (const size_t i : pending(point)) {
            const bool kept = draw(10) >= odds || (names_arrive && files_.operations()[i].kind == Kind::names);
            fates[i] = kept ? Fate::kept : draw(2) == 0 ? Fate::torn : Fate::lost;
        }
        visit(point, fates);
    }

    uint64_t draw(uint64_t below) { return random_.below(draws_++, below); }

    /// A sector of a write arrives, or not; of one that does not, the file's new size may arrive alone.
    void tear(std::string& content, const FileOperation& o) {
        constexpr uint64_t sector = 512;
        for (uint64_t at = 0; at < o.bytes.size();) {
            const uint64_t end = std::min<uint64_t>(((o.offset + at) / sector + 1) * sector - o.offset, o.bytes.size());
            const uint64_t fate = draw(3);
            if (fate < 2 && content.size() < o.offset + end) content.resize(o.offset + end, '\0');
            if (fate == 0) content.replace(o.offset + at, end - at, o.bytes, at, end - at);
            at = end;
        }
    }

    static void apply(const FileOperation& o, std::vector<std::map<std::string, int>>& names) {
        for (const auto& n : o.names) {
            auto& folder = names[static_cast<size_t>(n.folder)];
            if (n.node < 0)
                folder.erase(n.name);
            else
                folder[n.name] = n.node;
        }
    }

    DiskState state(size_t point, const std::map<size_t, Fate>& fates) {
        std::vector<std::string> contents;
        std::vector<std::map<std::string, int>> names;
        for (const auto& node : files_.first()) contents.push_back(node.content), names.push_back(node.names);
        for (size_t i = 0; i < point; ++i) {
            const FileOperation& o = files_.operations()[i];
            for (const auto& n : o.names) {
                const auto needed = static_cast<size_t>(std::max(n.node, n.folder)) + 1;
                if (names.size() < needed) names.resize(needed), contents.resize(needed);
            }
            const auto fate = fates.find(i);
            const Fate f = fate == fates.end() ? Fate::kept : fate->second;
            if (o.kind == Kind::names && f == Fate::kept) apply(o, names);
            if (o.kind != Kind::write && o.kind != Kind::truncate) continue;
            std::string& content = contents[static_cast<size_t>(o.node)];
            if (f == Fate::torn && o.kind == Kind::write) tear(content, o);
            if (f != Fate::kept) continue;
            const uint64_t end = o.offset + o.bytes.size();
            if (o.kind == Kind::truncate || content.size() < end) content.resize(end, '\0');
            content.replace(o.offset, o.bytes.size(), o.bytes);
        }
        DiskState disk;
        const std::function<void(int, const std::string&)> walk = [&](int folder, const std::string& prefix) {
            for (const auto& [name, node] : names[static_cast<size_t>(folder)]) {
                const bool is_folder = files_.is_folder(node);
                disk[prefix + name + (is_folder ? "/" : "")] = is_folder ? "" : contents[static_cast<size_t>(node)];
                if (is_folder) walk(node, prefix + name + "/");
            }
        };
        walk(0, "");
        return disk;
    }

    void visit(size_t point, const std::map<size_t, Fate>& fates) {
        const DiskState disk = state(point, fates);
        int64_t marks = 0;
        for (size_t i = 0; i < point; ++i) marks += files_.operations()[i].kind == Kind::mark;
        std::string text;
        for (const auto& [path, content] : disk) text += fmt::format("{}\n{}\n{}", path, content.size(), content);
        const size_t hash = std::hash<std::string>()(text);
        result_.states += disks_.insert(hash).second;
        if (!seen_.insert({hash, marks}).second) return;
        const std::string wrong = (*check_)(disk, marks);
        if (wrong.empty()) return;
        if (result_.broken++ == 0)
            result_.first =
                fmt::format("{} (cut after {} operations and {} marks, {} pending)", wrong, point, marks, fates.size());
    }

    const RecordedFiles& files_;
    Syncs syncs_;
    Philox random_{42, 15};
    uint64_t draws_ = 0;
    Result result_;
    std::set<std::pair<size_t, int64_t>> seen_;
    std::set<size_t> disks_;
    const Check* check_ = nullptr;
};

/// A folder for states, in memory if the system has one there: many small files are made and removed.
inline std::string folder_for_states(const std::string& otherwise) {
    const std::string memory = "/dev/shm";
    if (::access(memory.c_str(), W_OK) != 0) return otherwise;
    return fmt::format("{}/colonnade-states-{}", memory, ::getpid());
}

/// Makes `folder` hold a state and nothing else.
inline void materialise(const DiskState& disk, const std::string& folder) {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    for (const auto& [path, content] : disk) {
        if (path.ends_with('/'))
            std::filesystem::create_directory(folder + "/" + path);
        else
            std::ofstream(folder + "/" + path, std::ios::binary) << content;
    }
}

/// `usual`, times COLONNADE_CRASH_STATES if it is set: for a long run.
inline int64_t states_wanted(int64_t usual) {
    const char* const factor = std::getenv("COLONNADE_CRASH_STATES");
    return usual * (factor ? std::atoll(factor) : 1);
}

}  // namespace colonnade
