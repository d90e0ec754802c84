#pragma once
// Chat templates of models (Jinja, as transformers renders it), with the origin of each byte of the result.
//
// The language is what chat templates use: for, if, set, macro, filter blocks, break, continue, {% generation %},
// Python's values and the filters, tests and methods of builtins.h. Everything else is refused by its name: statements
// when the template is parsed, the rest when a render reaches it (find_unsupported() lists filters and tests in
// advance). A template cannot change its input, call anything outside, or run without end: Limits bounds steps, depth
// and sizes.

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/text/jinja/text.h"
#include "data/text/jinja/value.h"
#include "data/text/span.h"

namespace colonnade::jinja {

/// Where a run of bytes came from. Origin 0 is the template's own text outside loops over messages.
struct Origin {
    static constexpr size_t kNoMessage = static_cast<size_t>(-1);
    bool input = false;           ///< false: the template's own text
    size_t message = kNoMessage;  ///< input: the message that holds it; else the message that the loop visited
    std::string field;            ///< input: the key within its message, such as content; else the top-level variable
    uint32_t parent = 0;          ///< input: origin of the list or dict that holds it
    std::string key;              ///< input: its key or index there
};

/// The text of a chat. Spans are offsets of bytes.
struct Rendered {
    Text text;
    std::vector<Origin> origins;   ///< by Mark::origin
    std::vector<Span> generation;  ///< what each {% generation %} block wrote, without empty ones

    const Origin& origin(const Run& run) const { return origins[run.mark.origin]; }
    std::string path(uint32_t origin) const;  ///< such as messages[1].tool_calls[0].function.name; "" for the template
};

/// The date that strftime_now formats. Training data must not depend on the day, so there is no default.
struct Clock {
    int year = 2025, month = 1, day = 1, hour = 0, minute = 0, second = 0;
};

struct RenderOptions {
    std::optional<Clock> clock;  ///< absent: strftime_now is refused
    Limits limits;
};

struct Node;

/// A parsed template. Renders may run on several threads at once.
class Template {
  public:
    /// `name` begins messages: "name:line:column: ...". Throws Exit::config for what cannot be parsed.
    Template(const std::string& source, std::string name);
    Template(Template&&) noexcept;
    Template& operator=(Template&&) noexcept;
    ~Template();

    /// Renders with these variables: messages, tools, add_generation_prompt, bos_token, ... chat_variables() prepares
    /// them as transformers does. Throws Exit::data with "name:line:column: ...".
    Rendered render(const nlohmann::ordered_json& variables, const RenderOptions& options = {}) const;

    /// Filters and tests that the template names and the interpreter does not know, as "name:line:column: ...". Real
    /// templates name some in branches that chats never reach.
    std::vector<std::string> find_unsupported() const;
    bool has_generation() const;  ///< whether it has a {% generation %} block
    /// Whether one loop writes the messages in order, and nothing in it depends on later messages: the text up to a
    /// message is then the same whatever follows. False if that is not evident (reading_order.cpp).
    bool reads_forward() const;

  private:
    std::string name_;
    std::unique_ptr<Node> tree_;
};

/// Prepares variables as transformers does: adds tools, documents (null) and add_generation_prompt (false) unless
/// given; drops keys of messages whose value is null; copies reasoning_content, thinking or reasoning, the first that a
/// message has, to reasoning_content and thinking unless it has those.
nlohmann::ordered_json chat_variables(nlohmann::ordered_json variables);

/// What an assistant message wrote.
struct Turn {
    size_t message = 0;
    Span whole;                 ///< first to last byte of its parts, template text between them and end marker included
    std::vector<Span> content;  ///< from its content
    std::vector<Span> thinking;    ///< from reasoning_content, thinking or reasoning
    std::vector<Span> tool_calls;  ///< from tool_calls, template text between the parts of one call included
};

/// What the template writes around answers.
struct TurnMarks {
    std::string header;                    ///< text that precedes an answer: the generation prompt; empty: not known
    std::vector<std::string> end_markers;  ///< such as <|im_end|>; the nearest one behind ends the turn
};

/// Returns the turns of assistant messages. A turn begins behind the header if the template wrote that for the same
/// message, so that <think> and <tool_call> before the first byte of input belong to it; without a header, with the
/// template's first byte for the message. A message that wrote no byte, an empty answer, has a turn if an end marker
/// follows its header.
std::vector<Turn> assistant_turns(const Rendered& rendered, const nlohmann::ordered_json& messages,
                                  const TurnMarks& marks);

}  // namespace colonnade::jinja
