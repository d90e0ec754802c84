#include "data/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <ctime>

#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr uint32_t most_steps = limits::match_steps, most_kilobytes = limits::match_kilobytes;
constexpr size_t jit_stack = size_t{1} << 20;
constexpr size_t places_at_a_time = 256, matches_between_looks = 256;

/// PCRE2 counts steps anew for each place where a match may begin, so that many places may take hours together. It is
/// asked about a few places at a time, and between them for the time that the thread has spent on the text.
class Patience {
  public:
    explicit Patience(size_t bytes)
        : most_seconds_(limits::match_seconds + limits::match_seconds_per_byte * static_cast<double>(bytes)) {}
    bool is_over() {
        timespec time = {};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        const double now = static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
        if (started_ == 0) started_ = now;
        return now - started_ > most_seconds_;
    }

  private:
    double most_seconds_, started_ = 0;
};

/// Memory that one thread matches with. Patterns have no groups that capture, so one pair of places is enough.
struct Matching {
    pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
    pcre2_match_context* context = pcre2_match_context_create(nullptr);
    pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, jit_stack, nullptr);

    Matching() {
        require(data && context && stack, "no memory to match regular expressions");
        pcre2_set_match_limit(context, most_steps);
        pcre2_set_heap_limit(context, most_kilobytes);
        pcre2_jit_stack_assign(context, nullptr, stack);
    }
    ~Matching() {
        pcre2_match_data_free(data);
        pcre2_jit_stack_free(stack);
        pcre2_match_context_free(context);
    }
    Matching(const Matching&) = delete;
    Matching& operator=(const Matching&) = delete;
};

std::string error_text(int error) {
    char text[200] = "";
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof(text));
    return text;
}

}  // namespace

Regex::Regex(std::string_view pattern, const std::string& where)
    : name_(fmt::format("{}: the pattern '{:.300}'", where, pattern)) {
    const std::string translated = pcre2_pattern(pattern, where);
    int error = 0;
    PCRE2_SIZE place = 0;
    const auto* text = reinterpret_cast<PCRE2_SPTR>(translated.data());
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    constexpr uint32_t options =
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
    pcre2_code* code = pcre2_compile(text, translated.size(), options, &error, &place, context);
    pcre2_compile_context_free(context);
    if (!code) fail(Exit::data, "{}: not supported: {}", name_, error_text(error));
    code_.reset(code, pcre2_code_free);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // matching works without it, too
}

/// As the package does: a match that is empty and begins where the last one ends is passed over.
void Regex::find(std::string_view text, uint32_t offset, std::vector<Piece>& out) const {
    thread_local const Matching matching;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t last_end = text.size() + 1;
    Patience patience(text.size());
    const auto stop = [&](size_t at, const std::string& why) {
        fail(Exit::data, "{}: matching {} bytes of text stops at byte {}: {}; shorten the text or simplify the pattern",
             name_, text.size(), at, why);
    };
    for (size_t at = 0, calls = 1; at <= text.size(); ++calls) {
        if (calls % matches_between_looks == 0 && patience.is_over()) stop(at, "it takes too long");
        size_t next = at + places_at_a_time;
        while (next < text.size() && (text[next] & 0xC0) == 0x80) ++next;
        if (next >= text.size()) next = text.size() + 1;
        pcre2_set_offset_limit(matching.context, next - 1);
        const auto match = [&](uint32_t options) {
            return pcre2_match(code_.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK | options, matching.data,
                               matching.context);
        };
        int found = match(0);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(PCRE2_NO_JIT);
        if (found == PCRE2_ERROR_NOMATCH) {
            if (next <= text.size() && patience.is_over()) stop(at, "it takes too long");
            at = next;
            continue;
        }
        if (found < 0) stop(at, error_text(found));
        const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(matching.data);
        const size_t begin = ends[0], end = ends[1];
        if (begin == end && end == last_end) {
            at += at < text.size() ? character_at(text.data() + at).bytes : 1;
            continue;
        }
        at = last_end = end;
        out.push_back({offset + static_cast<uint32_t>(begin), offset + static_cast<uint32_t>(end)});
    }
}

std::string Regex::replace(std::string_view text, std::string_view content) const {
    if (text.empty()) return {};  // the package does not look for matches in it
    std::vector<Piece> matches;
    find(text, 0, matches);
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    size_t end = 0;
    for (const Piece match : matches) {
        out += text.substr(end, match.begin - end);
        out += content;
        check_text_size(out.size());
        end = match.end;
    }
    return out += text.substr(end);
}

}  // namespace colonnade
