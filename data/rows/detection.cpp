// Finds out which format the rows of a file have, and under which names their keys stand.

#include <algorithm>

#include "data/rows/row_formats.h"
#include "data/rows/score_keys.h"
#include "data/rows/teacher_keys.h"
#include "data/rows/turn_rows.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

/// A format as people spell its keys.
struct Spelling {
    std::string_view type;
    Columns columns = {};                   ///< our name of a key: the name in the file
    std::vector<std::string> in_some = {};  ///< keys of the file that at least one row has to fill
    std::vector<std::string> in_all = {};   ///< optional keys of the format that every row has to have
};

/// The first that fits is taken. Chats come before plain texts: a row with a chat and a plain copy of its text is read
/// as a chat. A question and its answer are two turns of a chat, not one text.
const std::vector<Spelling>& text_spellings() {
    static const std::vector<Spelling> spellings = [] {
        std::vector<Spelling> list = {{"tokens"}, {"messages"}, {"sharegpt"}};
        for (const char* key : {"conversations", "messages", "conversation", "dialog", "dialogue"}) {
            list.push_back({"messages", {{"messages", key}}});
            list.push_back({"sharegpt", {{"conversations", key}}});
        }
        list.push_back({"alpaca"});
        for (const char* answer : {"response", "answer", "completion"})
            list.push_back({"alpaca", {{"output", answer}}});
        for (const char* system : {"system", "system_prompt"})
            list.push_back({"alpaca", {{"instruction", "prompt"}, {"output", "completion"}}, {system}});
        list.push_back({"prompt_completion"});
        list.push_back({"scored"});
        list.push_back({"scored", {{"scores", "rewards"}}});
        for (const auto& [ask, answer] :
             std::initializer_list<std::pair<const char*, const char*>>{{"prompt", "response"},
                                                                        {"prompt", "answer"},
                                                                        {"prompt", "output"},
                                                                        {"question", "answer"},
                                                                        {"question", "response"},
                                                                        {"question", "output"},
                                                                        {"question", "solution"},
                                                                        {"query", "response"},
                                                                        {"query", "answer"},
                                                                        {"problem", "solution"},
                                                                        {"problem", "answer"},
                                                                        {"input", "output"}})
            list.push_back({"alpaca", {{"instruction", ask}, {"output", answer}}});
        list.push_back({"text"});
        return list;
    }();
    return spellings;
}

const std::vector<Spelling>& preference_spellings() {
    static const std::vector<Spelling> spellings = [] {
        std::vector<Spelling> list = {{"tokens"},
                                      {"tokens",
                                       {{"prompt_input_ids", "prompt_ids"},
                                        {"chosen_input_ids", "chosen_ids"},
                                        {"rejected_input_ids", "rejected_ids"}}},
                                      {"messages"},
                                      {"sharegpt"},
                                      {"messages", {{"messages", "conversations"}}},
                                      {"sharegpt", {{"conversations", "messages"}}},
                                      {"turns"},
                                      {"turns", {{"messages", "conversations"}}},
                                      {"steps"},
                                      {"alpaca"},
                                      {"alpaca", {{"instruction", "prompt"}}, {"system"}},
                                      {"alpaca", {{"instruction", "prompt"}}, {"system_prompt"}},
                                      {"preference", {}, {}, {"prompt"}}};
        for (const char* ask : {"question", "query", "instruction", "input"}) {
            list.push_back({"alpaca", {{"instruction", ask}}});
            list.push_back({"preference", {{"prompt", ask}}, {}, {"prompt"}});
        }
        list.push_back({"preference"});
        list.push_back({"ranked"});
        return list;
    }();
    return spellings;
}

const std::vector<Spelling>& scored_spellings() {
    static const std::vector<Spelling> spellings = [] {
        std::vector<Spelling> list = {{"prompt_tokens"}, {"tokens"}};
        for (const char* ids : {"input_ids", "token_ids"})
            list.push_back({"prompt_tokens",
                            {{"prompt_ids", fmt::format("prompt_{}", ids)},
                             {"completion_ids", fmt::format("completion_{}", ids)}}});
        for (const char* ids : {"tokens", "token_ids"}) list.push_back({"tokens", {{"input_ids", ids}}});
        list.push_back({"rollouts"});
        list.push_back({"rollouts", {{"completions", "responses"}}});
        list.push_back({"prompt_completion"});
        list.push_back({"prompt_completion", {{"completion", "response"}}});
        // What verl writes of its rollouts: decoded text.
        list.push_back({"prompt_completion", {{"prompt", "input"}, {"completion", "output"}, {"reward", "score"}}});
        return list;
    }();
    return spellings;
}

/// LLaMA-Factory's name of the label is kto_tag.
const std::vector<Spelling>& labelled_spellings() {
    static const std::vector<Spelling> spellings = [] {
        std::vector<Spelling> list;
        for (const char* label : {"label", "kto_tag"}) {
            const auto add = [&](std::string_view type, Columns columns) {
                columns.emplace("label", label);
                list.push_back({type, std::move(columns)});
            };
            add("prompt_tokens", {});
            add("prompt_tokens", {{"prompt_ids", "prompt_input_ids"}, {"completion_ids", "completion_input_ids"}});
            add("messages", {});
            add("messages", {{"messages", "conversations"}});
            add("sharegpt", {});
            add("sharegpt", {{"conversations", "messages"}});
            add("alpaca", {});
            add("prompt_completion", {});
            add("prompt_completion", {{"completion", "response"}});
        }
        return list;
    }();
    return spellings;
}

const std::vector<Spelling>& taught_spellings() {
    static const std::vector<Spelling> spellings = [] {
        std::vector<Spelling> list = {{"prompt_tokens"}};
        for (const char* ids : {"input_ids", "token_ids"})
            list.push_back({"prompt_tokens",
                            {{"prompt_ids", fmt::format("prompt_{}", ids)},
                             {"completion_ids", fmt::format("completion_{}", ids)}}});
        // What vLLM returns.
        list.push_back({"prompt_tokens", {{"prompt_ids", "prompt_token_ids"}, {"completion_ids", "token_ids"}}});
        list.push_back({"tokens"});
        list.push_back({"tokens", {{"input_ids", "tokens"}}});
        list.push_back({"messages"});
        list.push_back({"messages", {{"messages", "conversations"}}});
        list.push_back({"prompt_completion"});
        list.push_back({"prompt_completion", {{"completion", "response"}}});
        return list;
    }();
    return spellings;
}

const std::vector<Spelling>& spellings_of(RowKind kind) {
    switch (kind) {
        case RowKind::preferences:
            return preference_spellings();
        case RowKind::scored:
            return scored_spellings();
        case RowKind::labelled:
            return labelled_spellings();
        case RowKind::taught:
            return taught_spellings();
        case RowKind::texts:
            break;
    }
    return text_spellings();
}

const RowFormat& format_of(RowKind kind, const Spelling& spelling) {
    return *std::ranges::find(row_formats(kind), spelling.type, &RowFormat::name);
}

Columns columns_of(const Spelling& spelling, const DatasetSpec& spec) {
    Columns columns = spec.columns;
    for (const auto& [ours, theirs] : spelling.columns)
        if (ours != theirs) columns.emplace(ours, theirs);
    return columns;
}

/// Whether the turns under `key`, if they are a list of objects, have this role key and not the other one.
bool turns_have(const RowFields& row, const std::string& key, const char* role, const char* other) {
    const Json& turns = row.at(key);
    if (!turns.is_array() || turns.empty() || !turns[0].is_object()) return true;
    const auto name = row.columns().find(role);
    return turns[0].contains(name == row.columns().end() ? role : name->second) || !turns[0].contains(other);
}

bool ends_with_answer(const RowFields& row, const Json& turns) {
    if (!turns.is_array() || turns.empty() || !turns.back().is_object()) return false;
    const auto role = turns.back().find(row.name("role"));
    return role != turns.back().end() && *role == "assistant";
}

/// Whether the values of a row have the form that the format expects under these names.
bool has_form(RowKind kind, const RowFields& row, std::string_view type) {
    if (kind == RowKind::scored && !has_reward(row)) return false;
    if (kind == RowKind::taught && !has_teacher(row)) return false;
    // Data sets for classifiers have labels of other types.
    if (kind == RowKind::labelled && !row.at("label").is_boolean() && !row.at("label").is_number()) return false;
    const auto is_text = [&](const char* key) { return !row.find(key) || row.at(key).is_string(); };
    if (type == "sharegpt") return turns_have(row, "conversations", "from", "role");
    if (type == "alpaca") return is_text("instruction") && is_text("chosen") && is_text("rejected");
    if (type == "turns") return has_rejected(row.at("messages"), row.name("rejected"));
    if (type != "messages") return true;
    // UltraFeedback: the conversations of a pair stand in chosen and rejected, and once more in messages.
    return turns_have(row, "messages", "role", "from") &&
           (kind != RowKind::preferences || !ends_with_answer(row, row.at("messages")));
}

bool fits(RowKind kind, const Spelling& spelling, const DatasetSpec& spec, const PlacedRow& row) {
    const RowFormat& format = format_of(kind, spelling);
    const auto knows = [&](const std::string& key) {
        return std::ranges::count(format.required, key) + std::ranges::count(format.optional, key) > 0;
    };
    for (const auto& [ours, theirs] : spec.columns)
        if (!knows(ours)) return false;
    const Columns columns = columns_of(spelling, spec);
    const RowFields fields(row.object, columns, row.where);
    const auto has = [&](const std::string& key) { return fields.find(key) != nullptr; };
    return std::ranges::all_of(format.required, has) && std::ranges::all_of(spelling.in_all, has) &&
           has_form(kind, fields, spelling.type);
}

bool fills_some(const Spelling& spelling, const PlacedRow& row) {
    static const Columns own_names;
    const RowFields fields(row.object, own_names, row.where);
    return std::ranges::all_of(spelling.in_some, [&](const auto& key) { return fields.find_filled(key); });
}

/// OpenOrca's name of the system prompt, if the format takes one and no row has ours.
void find_system_prompt(const RowFormat& format, std::span<const PlacedRow> rows, Columns& columns) {
    const auto some_has = [&](const char* key) {
        return std::ranges::any_of(rows, [&](const PlacedRow& row) { return row.object.contains(key); });
    };
    if (std::ranges::count(format.optional, "system") && some_has("system_prompt") && !some_has("system"))
        columns.emplace("system", "system_prompt");
}

/// The first spelling that fits one row; null if there is none.
const Spelling* first_fit(RowKind kind, const DatasetSpec& spec, const PlacedRow& row) {
    for (const Spelling& spelling : spellings_of(kind))
        if ((spec.type == "auto" || spec.type == spelling.type) && fits(kind, spelling, spec, row) &&
            fills_some(spelling, row))
            return &spelling;
    return nullptr;
}

/// What rows of a kind are, and which stage reads them.
constexpr std::pair<RowKind, const char*> stages_of_kinds[] = {
    {RowKind::labelled, "rows with a label need stage kto"},
    {RowKind::scored, "rows with rewards or advantages need stage grpo"},
    {RowKind::taught, "rows with a teacher's log-probabilities need stage distill"},
    {RowKind::preferences, "rows with answers to compare need stage dpo or rm"},
    {RowKind::texts, "rows without answers to compare need stage pt or sft"},
};

[[noreturn]] void refuse_row(RowKind kind, const DatasetSpec& spec, const PlacedRow& row) {
    const DatasetSpec unnamed = {.path = spec.path};
    std::string other;
    for (const auto& [another, stage] : stages_of_kinds)
        if (another != kind && other.empty() && first_fit(another, unnamed, row)) other = fmt::format("; {}", stage);
    fail(Exit::data,
         "{}: cannot detect the format of this row{}; found keys: {}; expected {}{}; set type to the format, or rename "
         "keys with columns{}",
         row.where, kind == RowKind::texts ? "" : fmt::format(" of {}", name_of(kind)), found_keys(row.object),
         known_formats(kind),
         kind == RowKind::scored   ? ", each with reward(s) or advantage(s)"
         : kind == RowKind::taught ? ", each with teacher_ids and teacher_log_probs, or logprobs"
                                   : "",
         other);
}

/// "messages (first at data.jsonl:1), text (first at data.jsonl:4)"
[[noreturn]] void refuse_mixture(RowKind kind, const DatasetSpec& spec, std::span<const PlacedRow> rows) {
    std::vector<std::string> seen, shown_formats;
    for (const PlacedRow& row : rows) {
        const Spelling* spelling = first_fit(kind, spec, row);
        if (!spelling) refuse_row(kind, spec, row);
        const std::string keys = fmt::format("{}", fmt::join(format_of(kind, *spelling).required, ", "));
        std::string renamed;
        for (const auto& [ours, theirs] : spelling->columns) renamed += fmt::format(", {}: {}", ours, theirs);
        const std::string name = fmt::format("{} {{{}{}}}", spelling->type, keys, renamed);
        if (std::ranges::find(seen, name) != seen.end()) continue;
        seen.push_back(name);
        shown_formats.push_back(fmt::format("{} first at {}", name, row.where));
    }
    fail(Exit::data,
         "{}: the rows have different formats: {}; expected one format in a file; split the file into one data set for "
         "each",
         spec.path, fmt::join(shown_formats, "; "));
}

}  // namespace

DetectedFormat detect_row_format(RowKind kind, const DatasetSpec& spec, std::span<const PlacedRow> rows) {
    for (const Spelling& spelling : spellings_of(kind)) {
        if (spec.type != "auto" && spec.type != spelling.type) continue;
        const bool fit = std::ranges::all_of(rows, [&](const auto& row) { return fits(kind, spelling, spec, row); }) &&
                         std::ranges::any_of(rows, [&](const auto& row) { return fills_some(spelling, row); });
        if (!fit) continue;
        DetectedFormat found = {std::string(spelling.type), columns_of(spelling, spec)};
        find_system_prompt(format_of(kind, spelling), rows, found.columns);
        return found;
    }
    if (spec.type != "auto") return {spec.type, spec.columns};
    refuse_mixture(kind, spec, rows);
}

}  // namespace colonnade
