// Formats of text rows: chats, prompts with a completion, plain text, token ids.

#include <algorithm>

#include "data/rows/row_formats.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

Row read_chat(const RowFields& row) {
    Row result;
    result.messages = read_messages(row, "messages", MessageStyle::chat);
    return result;
}

Row read_prompt_completion(const RowFields& row) {
    Row result;
    const Json &prompt = row.at("prompt"), &completion = row.at("completion");
    if (prompt.is_string() && completion.is_string()) {
        result.prompt = prompt.get<std::string>();
        result.completion = completion.get<std::string>();
        return result;
    }
    if (!prompt.is_array() || !completion.is_array())
        fail(Exit::data, "{}: keys '{}' and '{}': expected two strings or two message lists, found {} and {}",
             row.where(), row.name("prompt"), row.name("completion"), prompt.type_name(), completion.type_name());
    result.messages = read_messages(row, "prompt", MessageStyle::chat);
    result.prompt_messages = static_cast<int64_t>(result.messages.size());
    const std::vector<Message> completion_messages = read_messages(row, "completion", MessageStyle::chat);
    result.messages.insert(result.messages.end(), completion_messages.begin(), completion_messages.end());
    return result;
}

Row read_alpaca(const RowFields& row) {
    Row result;
    result.messages = read_alpaca_prompt(row);
    result.messages.push_back({"assistant", row.text("output")});
    return result;
}

Row read_sharegpt(const RowFields& row) {
    Row result;
    result.messages = read_sharegpt_messages(row);
    return result;
}

Row read_text(const RowFields& row) {
    Row result;
    result.completion = row.text("text");
    return result;
}

Row read_tokens(const RowFields& row) {
    Row result;
    result.input_ids = read_ids(row, "input_ids", 0, "a token id");
    result.labels = read_labels(row, "labels", "input_ids", result.input_ids);
    const size_t length = result.input_ids.size();
    if (row.find("attention_mask")) {
        const std::vector<int32_t> mask = read_ids(row, "attention_mask", 0, "0 or 1");
        require_same_length(row, "attention_mask", mask.size(), "input_ids", length);
        const auto ones = static_cast<size_t>(std::find(mask.begin(), mask.end(), 0) - mask.begin());
        for (size_t i = 0; i < length; ++i)
            if (mask[i] != (i < ones ? 1 : 0))
                fail(Exit::data, "{}: {}[{}]: expected ones, then zeros (padding at the end), found {}", row.where(),
                     row.name("attention_mask"), i, mask[i]);
        if (ones == 0)
            fail(Exit::data, "{}: key '{}': every entry is padding", row.where(), row.name("attention_mask"));
        result.input_ids.resize(ones);
        result.labels.resize(ones);
    }
    return result;
}

}  // namespace

/// Chats come before plain texts: a row with a chat and a plain copy of its text is read as a chat.
const std::vector<RowFormat>& text_formats() {
    static const std::vector<RowFormat> formats = {
        {"tokens", {"input_ids"}, {"labels", "attention_mask"}, read_tokens},
        {"messages", {"messages"}, {"role", "content", "train", "weight"}, read_chat},
        {"sharegpt", {"conversations"}, {"system", "from", "value", "train", "weight"}, read_sharegpt},
        {"alpaca", {"instruction", "output"}, {"input", "system", "history"}, read_alpaca},
        {"prompt_completion", {"prompt", "completion"}, {"role", "content", "train", "weight"}, read_prompt_completion},
        {"text", {"text"}, {}, read_text},
    };
    return formats;
}

}  // namespace colonnade
