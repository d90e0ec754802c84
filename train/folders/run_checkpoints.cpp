#include "train/folders/run_checkpoints.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "engine/io/files.h"
#include "engine/io/folder_lock.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/export.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// Renames a folder to "<folder>.damaged", with a number if that exists. Returns the new name.
std::string keep_aside(const std::string& folder) {
    const std::string first = folder + ".damaged";
    std::string name = first;
    std::error_code none;
    for (int n = 2; fs::exists(fs::symlink_status(name, none)); ++n) name = fmt::format("{}-{}", first, n);
    rename_path(folder, name);
    return name;
}

std::string without_advice(const std::string& what) {
    return what.substr(0, what.find(fmt::format("; {}", damage_advice)));
}

}  // namespace

std::string checkpoint_folder(const std::string& output_dir, int64_t step) {
    return fmt::format("{}/checkpoint-{}", output_dir, step);
}

std::vector<int64_t> checkpoint_steps(const std::string& output_dir) {
    constexpr std::string_view prefix = "checkpoint-";
    std::vector<int64_t> steps;
    if (!is_folder(output_dir)) return steps;
    for (const std::string& name : names_in(output_dir)) {
        if (!name.starts_with(prefix) || !is_folder(output_dir + "/" + name)) continue;
        int64_t step = 0;
        const char* end = name.data() + name.size();
        // "checkpoint-20.tmp-123" is not a checkpoint: the whole rest must be a number.
        const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, step);
        if (error == std::errc() && stop == end) steps.push_back(step);
    }
    std::sort(steps.begin(), steps.end());
    return steps;
}

std::string checkpoint_for_model(const std::string& path) {
    const std::vector<int64_t> steps = checkpoint_steps(path);
    if (steps.empty() || path_exists(path + "/config.json") || is_adapter_folder(path)) return "";
    return checkpoint_folder(path, steps.back());
}

NewestCheckpoint newest_checkpoint(const std::string& output_dir) {
    std::vector<int64_t> steps = checkpoint_steps(output_dir);
    NewestCheckpoint found;
    if (steps.empty()) return found;
    std::vector<std::pair<std::string, std::string>> damaged;  // folder, and what is wrong
    for (; !steps.empty() && !found.whole; steps.pop_back()) {
        const std::string folder = checkpoint_folder(output_dir, steps.back());
        try {
            found.whole = check_checkpoint(folder);
        } catch (const Error& e) {
            if (e.exit() != Exit::data) throw;
            damaged.emplace_back(folder, without_advice(e.what()));
        }
    }
    if (!found.whole)
        fail(Exit::data,
             "{}: has {} checkpoint{}, and none is whole: {}; nothing was removed. Bring one back, or start anew with "
             "overwrite_output_dir: true or another output_dir",
             output_dir, damaged.size(), damaged.size() == 1 ? "" : "s", damaged.front().second);
    for (const auto& [folder, reason] : damaged)
        found.notices.push_back(fmt::format("warning: {}; kept as {}, and the run resumes from an older checkpoint",
                                            reason, fs::path(keep_aside(folder)).filename().string()));
    if (!damaged.empty()) sync_path(output_dir);
    return found;
}

std::string rotate_checkpoints(const std::string& output_dir, const Rotation& rotation) {
    std::string trouble;
    const std::vector<int64_t> steps = checkpoint_steps(output_dir);
    if (rotation.keep <= 0 || steps.empty()) return trouble;
    const auto stays = [&](int64_t step) { return step == steps.back() || step == rotation.best; };
    int64_t excess = std::ssize(steps) - std::max(rotation.keep, std::ranges::count_if(steps, stays));
    for (const int64_t step : steps) {
        if (excess <= 0) break;
        if (stays(step)) continue;
        --excess;
        try {
            remove_folder(checkpoint_folder(output_dir, step));
        } catch (const Error& e) {
            if (trouble.empty()) trouble = e.what();
        }
    }
    return trouble;
}

std::string damage_of(const std::string& folder) {
    try {
        check_checkpoint(folder);
        return "";
    } catch (const Error& e) {
        if (e.exit() != Exit::data) throw;
        return without_advice(e.what());
    }
}

std::string remove_leftovers(const std::string& output_dir) {
    std::vector<std::string_view> stems = {"checkpoint-", "config.yaml", "metrics.",
                                           "report.",     "run.json",    "README.md"};
    stems.insert(stems.end(), std::begin(export_stems), std::end(export_stems));
    try {
        sweep_folder(output_dir, stems);
        return "";
    } catch (const Error& e) {
        return e.what();
    }
}

}  // namespace colonnade
