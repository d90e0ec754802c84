#include "data/rows/row_formats.h"

#include <algorithm>

#include "data/rows/row_fields.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

void append(std::vector<Message>& messages, const std::vector<Message>& more) {
    messages.insert(messages.end(), more.begin(), more.end());
}

Row read_chat(const Fields& row) {
    Row result;
    result.messages = read_messages(row, "messages", MessageStyle::chat);
    return result;
}

Row read_prompt_completion(const Fields& row) {
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
    append(result.messages, read_messages(row, "completion", MessageStyle::chat));
    return result;
}

Row read_alpaca(const Fields& row) {
    Row result;
    result.messages = read_alpaca_prompt(row);
    result.messages.push_back({"assistant", row.text("output"), std::nullopt});
    return result;
}

Row read_sharegpt(const Fields& row) {
    Row result;
    if (const std::string system = row.text_or_empty("system"); !system.empty())
        result.messages.push_back({"system", system, std::nullopt});
    append(result.messages, read_messages(row, "conversations", MessageStyle::sharegpt));
    return result;
}

Row read_text(const Fields& row) {
    Row result;
    result.completion = row.text("text");
    return result;
}

Row read_tokens(const Fields& row) {
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
        if (ones == 0) fail(Exit::data, "{}: key '{}': nothing but padding", row.where(), row.name("attention_mask"));
        result.input_ids.resize(ones);
        result.labels.resize(ones);
    }
    return result;
}

}  // namespace

/// A row with a chat and a plain copy of its text is a chat.
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

namespace {

const std::vector<RowFormat>& formats_of(RowKind kind) {
    return kind == RowKind::texts ? text_formats() : preference_formats();
}

std::string known_formats(RowKind kind) {
    std::string known;
    for (const RowFormat& format : formats_of(kind))
        known += fmt::format("{}{} {{{}}}", known.empty() ? "" : ", ", format.name, fmt::join(format.telling, ", "));
    return known;
}

/// The convention whose telling keys are all there; null where there is none.
const RowFormat* matching_format(RowKind kind, const Fields& fields) {
    for (const RowFormat& format : formats_of(kind))
        if (std::ranges::all_of(format.telling, [&](const auto& key) { return fields.find(key); })) return &format;
    return nullptr;
}

/// " of preferences", where the user may not know that stage dpo or rm asks for them.
const char* rows_of(RowKind kind) {
    return kind == RowKind::texts ? "" : " of preferences";
}

}  // namespace

void check_row_format(const DatasetSpec& spec, RowKind kind) {
    std::vector<std::string> names;
    bool known = spec.type == "auto";
    for (const RowFormat& format : formats_of(kind)) {
        if (spec.type != "auto" && spec.type != format.name) continue;
        known = true;
        names.insert(names.end(), format.telling.begin(), format.telling.end());
        names.insert(names.end(), format.further.begin(), format.further.end());
    }
    if (!known)
        fail(Exit::config, "{}: unknown type '{}'; expected{} auto, {}", spec.path, spec.type,
             kind == RowKind::texts ? "" : " a type of preferences:", known_formats(kind));
    for (const auto& [ours, theirs] : spec.columns)
        if (std::find(names.begin(), names.end(), ours) == names.end())
            fail(Exit::config, "{}: columns: type {} has no key '{}' that '{}' could stand for", spec.path, spec.type,
                 ours, theirs);
}

std::string detect_row_format(RowKind kind, const Json& object, const Columns& columns, const std::string& where) {
    const Fields fields(object, columns, where);
    if (const RowFormat* format = matching_format(kind, fields)) return std::string(format->name);
    const bool texts = kind == RowKind::texts;
    const char* other = !matching_format(texts ? RowKind::preferences : RowKind::texts, fields) ? ""
                        : texts ? "; answers to compare are for stages dpo and rm"
                                : "; texts without answers to compare are for stages pt and sft";
    fail(Exit::data,
         "{}: cannot tell the convention of this row{}; found keys: {}; expected {}; name it with type, rename keys "
         "with columns{}",
         where, rows_of(kind), found_keys(object), known_formats(kind), other);
}

Row read_row(RowKind kind, const std::string& type, const Json& object, const Columns& columns,
             const std::string& where) {
    for (const RowFormat& format : formats_of(kind))
        if (format.name == type) return format.read(Fields(object, columns, where));
    fail(Exit::internal, "no reader for rows{} of type '{}'", rows_of(kind), type);
}

}  // namespace colonnade
