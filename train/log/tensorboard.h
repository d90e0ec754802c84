#pragma once
// TensorBoard event files: a sequence of records
//
//     uint64 length | uint32 masked crc32c(length) | bytes | uint32 masked crc32c(bytes)      (little endian)
//
// whose bytes are Event messages (train/log/tensorboard_event.proto); masked(c) = rotate_right(c, 15) + 0xa282ead8.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/log/append_file.h"

namespace colonnade {

/// CRC-32C (Castagnoli), as in RFC 3720.
uint32_t crc32c(std::string_view bytes);
/// One record around `bytes`.
std::string event_record(std::string_view bytes);

class EventWriter {
  public:
    /// Begins a new file "events.out.tfevents.<seconds>.<host>.<pid>" in `folder`, which is made where missing. With
    /// `resumed_step`, TensorBoard is told to forget what earlier files say about later steps. Throws Exit::storage.
    explicit EventWriter(const std::string& folder, std::optional<int64_t> resumed_step = {});

    /// Scalars of one step, on disk when the call returns.
    void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

    const std::string& path() const { return file_.path(); }

  private:
    AppendFile file_;
};

}  // namespace colonnade
