#include "train/run/shared_folder.h"

#include <optional>

#include "engine/io/files.h"

namespace colonnade {

void require_shared_folder(const Ranks& ranks, const std::string& output_dir) {
    if (!ranks.several()) return;
    // Under a temporary name of a checkpoint, so that the next run removes it if this one is killed.
    std::optional<FolderCommit> mark;
    ranks.together("output_dir", [&] {
        if (ranks.first()) mark.emplace(output_dir + "/checkpoint-shared");
    });
    const std::string folder = ranks.broadcast("output_dir", mark ? mark->folder() : "");
    ranks.together("output_dir", [&] {
        if (!is_folder(folder))
            fail(Exit::config,
                 "output_dir {}: this rank does not see what {} writes there, and with zero_stage: 1 every rank writes "
                 "its share of a checkpoint: give a folder on a file system that all machines share, or zero_stage: 0",
                 output_dir, ranks.name(0));
    });
}

}  // namespace colonnade
