#pragma once
// TensorBoard event files: a sequence of records
//
//     uint64 length | uint32 masked crc32c(length) | bytes | uint32 masked crc32c(bytes)      (little endian)
//
// The bytes are Event messages (train/log/tensorboard_event.proto); masked(c) = rotate_right(c, 15) + 0xa282ead8.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/log/append_file.h"
#include "train/log/run_description.h"

namespace colonnade {

/// CRC-32C (Castagnoli), as in RFC 3720.
uint32_t crc32c(std::string_view bytes);
/// `bytes` framed as one record.
std::string event_record(std::string_view bytes);

class EventWriter {
  public:
    /// Creates the file "events.out.tfevents.<seconds>.<host>.<pid>" in `folder`, and the folder if it is missing. With
    /// `resumed_step`, TensorBoard drops what earlier files have about later steps. Throws Exit::storage.
    explicit EventWriter(const std::string& folder, std::optional<int64_t> resumed_step = {});

    /// Writes the scalars of one step; the system has them when the call returns.
    void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

    /// Writes a text of one step, in Markdown.
    void write_text(int64_t step, const std::string& title, const std::string& markdown);

    /// Writes config and texts for TensorBoard's plugins "text" and "hparams".
    void describe(const RunDescription& run);

    const std::string& path() const { return file_.path(); }

  private:
    AppendFile file_;
};

}  // namespace colonnade
