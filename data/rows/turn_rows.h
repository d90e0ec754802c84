#pragma once
// Preferences inside a conversation: answers of several turns, and steps of one answer.
//
//   turns   {"messages": [..., {"role": "assistant", "content", "rejected": answer or [answer, ...]}, ...]}: a message
//           of the assistant beats each of its `rejected` ones, behind the messages before it; later turns continue
//           from the message itself. In OpenAI's or ShareGPT's form. arXiv 2409.02392, 2406.14868
//   steps   {"prompt", "initial_reason_steps", "chosen", "rejected"}: the next step of an answer behind the right steps
//           so far, which are not learned. The answer goes on, so no end token follows. arXiv 2406.18629

#include "data/rows/row_fields.h"

namespace colonnade {

/// Whether a message of a list has `rejected`; `name`: the file's key.
bool has_rejected(const Json& messages, const std::string& name);

/// Throws Exit::data for `rejected` of another role, and for a chat whose turns have more than 128 MiB of text, each
/// with what stands before it.
Row read_turns(const RowFields& row);
Row read_steps(const RowFields& row);

}  // namespace colonnade
