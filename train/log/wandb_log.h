#pragma once
// WandbLog: a run in the offline format of Weights & Biases, as wandb 0.31 writes it. `wandb sync FOLDER` uploads it.
//
//     <output_dir>/wandb/offline-run-<date>_<time>-<id>/run-<id>.wandb
//
// The file is a log of LevelDB's form: the header ":W&B", uint16 0xbee1, uint8 0; then blocks of 32 KiB with pieces
//
//     uint32 CRC-32 of type and bytes | uint16 length | uint8 type (1 whole, 2 first, 3 middle, 4 last) | bytes
//
// (little endian), whose bytes are Record messages (train/log/wandb_record.proto). W&B does not promise this format; a
// test reads it with the real package where that is installed. A resumed run keeps its id in a folder of its own, and
// W&B joins them.

#include <optional>
#include <vector>

#include "engine/io/json.h"
#include "train/log/append_file.h"
#include "train/log/run_description.h"

namespace colonnade {

class WandbLog {
  public:
    /// Throws Exit::storage.
    WandbLog(const std::string& output_dir, const RunDescription& run, std::optional<int64_t> resumed_step);
    /// Writes the end of the run: that it failed, if an error destroys this object.
    ~WandbLog();
    WandbLog(const WandbLog&) = delete;
    WandbLog& operator=(const WandbLog&) = delete;

    /// Values of a step; numbers are under TensorBoard's tags.
    void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
    /// A text of a step.
    void write_text(int64_t step, const std::string& tag, const std::string& text);
    const std::string& path() const { return file_.path(); }

  private:
    using Values = std::vector<std::pair<std::string, std::string>>;  ///< tags and JSON
    void write_values(int64_t step, const Values& values);
    void put(const std::string& record);

    AppendFile file_;
    double began_;
    int64_t records_ = 0;
    size_t written_;  ///< bytes
};

}  // namespace colonnade
