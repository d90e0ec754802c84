// Spans of assistant messages, from the origins of bytes.

#include <algorithm>
#include <map>
#include <optional>

#include "data/text/jinja/template.h"

namespace colonnade::jinja {
namespace {

bool is_answer(const nlohmann::ordered_json& message) {
    return message.is_object() && message.contains("role") && message["role"] == "assistant";
}

std::vector<Span>* part_of(Turn& turn, const std::string& field) {
    if (field == "content") return &turn.content;
    if (field == "reasoning_content" || field == "thinking" || field == "reasoning") return &turn.thinking;
    return field == "tool_calls" ? &turn.tool_calls : nullptr;
}

/// Runs of one call join over the template's text between them; others join only when they touch.
void add_run(std::vector<Span>& spans, Span run, bool join) {
    if (!spans.empty() && (join || spans.back().end == run.begin))
        spans.back().end = run.end;
    else
        spans.push_back(run);
}

/// Index of the tool call that holds an origin: the key below messages[i].tool_calls.
std::string call_of(const Rendered& rendered, uint32_t origin) {
    std::string below;
    for (;
         rendered.origins[origin].key != "tool_calls" || rendered.origins[rendered.origins[origin].parent].field != "";
         origin = rendered.origins[origin].parent) {
        if (origin == 0) return {};
        below = rendered.origins[origin].key;
    }
    return below;
}

/// Offset behind the last header in `stretch`. A generation prompt may open with reasoning that a turn lacks: its
/// beginning, up to the end of a line or of a marker, is looked for too.
std::optional<size_t> behind_header(const std::string& stretch, const std::string& header) {
    for (size_t length = header.size(); length > 0; --length) {
        if (length < header.size() && header[length - 1] != '\n' && header[length - 1] != '>') continue;
        const size_t found = stretch.rfind(header.substr(0, length));
        if (found != std::string::npos) return found + length;
    }
    return std::nullopt;
}

/// Moves the turn's begin back to the end of the header that the template wrote for this message.
void include_prefix(const Rendered& rendered, const std::string& header, Turn& turn) {
    const auto& runs = rendered.text.runs();
    auto run = std::lower_bound(runs.begin(), runs.end(), turn.whole.begin,
                                [](const Run& candidate, size_t byte) { return candidate.end < byte; });
    if (turn.whole.begin == 0) return;
    // The stretch of this message that ends at the begin: the header may hold its role, and texts that the template set
    // before its loop.
    size_t begin = turn.whole.begin;
    while (true) {
        const Origin& origin = rendered.origin(*run);
        const bool set_before = !header.empty() && !origin.input && origin.message == Origin::kNoMessage;
        if (origin.message != turn.message && !set_before) break;
        begin = run == runs.begin() ? 0 : std::prev(run)->end;
        if (run-- == runs.begin()) break;
    }
    const std::string stretch = rendered.text.bytes().substr(begin, turn.whole.begin - begin);
    // A template without a generation prompt has no header: the stretch is the turn's.
    if (header.empty())
        turn.whole.begin = begin;
    else if (const auto found = behind_header(stretch, header))
        turn.whole.begin = begin + *found;
}

/// Moves the turn's end behind the nearest end marker in the template's text that follows.
void include_end(const Rendered& rendered, const std::vector<std::string>& markers, Turn& turn) {
    const auto& runs = rendered.text.runs();
    auto run = std::upper_bound(runs.begin(), runs.end(), turn.whole.end,
                                [](size_t byte, const Run& r) { return byte < r.end; });
    size_t stop = turn.whole.end;
    for (; run != runs.end() && (!rendered.origin(*run).input || rendered.origin(*run).message == Origin::kNoMessage);
         ++run)
        stop = run->end;
    const std::string after = rendered.text.bytes().substr(turn.whole.end, stop - turn.whole.end);
    size_t nearest = std::string::npos, end = 0;
    for (const std::string& marker : markers) {
        const size_t at = marker.empty() ? std::string::npos : after.find(marker);
        if (at == std::string::npos || at > nearest || (at == nearest && at + marker.size() < end)) continue;
        nearest = at;
        end = at + marker.size();
    }
    turn.whole.end += end;
}

/// The turn of a message without content: what the template writes for it between header and end marker.
std::optional<Turn> empty_turn(const Rendered& rendered, size_t message, const TurnMarks& marks) {
    std::optional<Span> written;
    size_t begin = 0;
    for (const Run& run : rendered.text.runs()) {
        const size_t start = std::exchange(begin, run.end);
        if (rendered.origin(run).message == message) written = Span{written ? written->begin : start, run.end};
    }
    if (!written) return std::nullopt;
    const std::string stretch = rendered.text.bytes().substr(written->begin, written->size());
    const auto header = marks.header.empty() ? std::optional<size_t>(0) : behind_header(stretch, marks.header);
    if (!header) return std::nullopt;
    const size_t at = written->begin + *header;
    Turn turn{message, {at, at}, {}, {}, {}};
    include_end(rendered, marks.end_markers, turn);
    return turn.whole.end > at ? std::optional(turn) : std::nullopt;
}

}  // namespace

std::vector<Turn> assistant_turns(const Rendered& rendered, const nlohmann::ordered_json& messages,
                                  const TurnMarks& marks) {
    std::map<size_t, Turn> turns;
    std::map<size_t, std::string> last_call;
    size_t begin = 0;
    for (const Run& run : rendered.text.runs()) {
        const Span span{std::exchange(begin, run.end), run.end};
        const Origin& origin = rendered.origin(run);
        if (!origin.input || origin.message == Origin::kNoMessage || origin.message >= messages.size()) continue;
        if (!is_answer(messages[origin.message])) continue;
        Turn turn{origin.message, span, {}, {}, {}};
        if (part_of(turn, origin.field) == nullptr) continue;
        Turn& known = turns.try_emplace(origin.message, std::move(turn)).first->second;
        known.whole.end = span.end;
        std::vector<Span>& part = *part_of(known, origin.field);
        const bool call = &part == &known.tool_calls;
        const std::string number = call ? call_of(rendered, run.mark.origin) : "";
        add_run(part, span, call && !part.empty() && last_call[origin.message] == number);
        if (call) last_call[origin.message] = number;
    }
    std::vector<Turn> result;
    for (auto& [message, turn] : turns) {
        include_prefix(rendered, marks.header, turn);
        include_end(rendered, marks.end_markers, turn);
        result.push_back(std::move(turn));
    }
    for (size_t i = 0; i < messages.size(); ++i) {
        if (turns.contains(i) || !is_answer(messages[i])) continue;
        if (const auto turn = empty_turn(rendered, i, marks)) result.push_back(*turn);
    }
    std::ranges::sort(result, {}, &Turn::message);
    return result;
}

}  // namespace colonnade::jinja
