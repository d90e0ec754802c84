#pragma once
// Progress of long work, told on stderr. On a terminal: one line that redraws itself,
//
//     train  42% [########------------] 420/1000 steps, 3.41 steps/s, 2m 03s, 2m 50s left, loss 2.31
//
// elsewhere (a file, a pipe, CI): the same text without the bar as plain lines, one at the start, at most one every ten
// seconds, and one at the end. Rate and time left are averages since the start. Used from one thread at a time.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace colonnade {

struct ProgressOptions {
    std::string label{};
    double total = 0;            ///< amount of work; 0: unknown (no bar, no time left)
    double initial = 0;          ///< done before this run began (a resumed step count): not part of the rate
    std::string unit = "steps";  ///< what is counted; "B" counts bytes and prints them as MiB
    // What tests inject; by default stderr as it is.
    std::optional<bool> terminal{};
    int columns = 0;                  ///< width of the terminal; 0: ask it
    std::function<double()> clock{};  ///< seconds
    std::function<void(std::string_view)> write{};
};

class Progress {
  public:
    explicit Progress(ProgressOptions options);
    /// Ends the line where finish() was not reached (an exception), so that an error message starts on its own line.
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// `done` of `total` is done; draws if it is time to.
    void update(double done);
    /// Text after the figures ("loss 2.31, lr 1e-4"), shown from the next drawing on.
    void suffix(std::string text) { suffix_ = std::move(text); }
    /// Prints a line of its own, above the bar.
    void print(std::string_view line);
    /// Draws the last state and ends the line.
    void finish();
    bool terminal() const { return terminal_; }

  private:
    std::string text(size_t bar_width) const;
    void draw();

    ProgressOptions options_;
    std::string suffix_;
    bool terminal_ = false, finished_ = false, line_open_ = false;
    double done_ = 0, start_ = 0, drawn_at_ = 0;
};

/// "350 ms", "12.3 s", "4m 05s", "2h 03m", "3d 04h".
std::string human_duration(double seconds);
/// "999", "12.3k", "4.56M", "1.20G": three significant digits from a thousand on.
std::string human_count(double count);

}  // namespace colonnade
