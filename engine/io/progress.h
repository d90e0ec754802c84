#pragma once
// Progress of long work, on stderr. On a terminal it is one line that redraws itself,
//
//     train  42% [########------------] 420/1000 steps, 3.41 steps/s, 2m 03s, 2m 50s left, loss 2.31
//
// elsewhere (a file, a pipe, CI) plain lines with the same text but no bar: one at the start, at most one every ten
// seconds, and one at the end. The rate and the time left are averages since the start. Use it from one thread at a
// time.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace colonnade {

struct ProgressOptions {
    std::string label{};
    double total = 0;            ///< amount of work; 0: unknown (no bar, no time left)
    double initial = 0;          ///< work done before this run (when it resumes): not part of the rate
    std::string unit = "steps";  ///< what is counted; "B" counts bytes and prints them as MiB
    // For tests; the default is stderr and its terminal.
    std::optional<bool> terminal{};
    int columns = 0;                  ///< width of the terminal; 0: query it
    std::function<double()> clock{};  ///< seconds
    std::function<void(std::string_view)> write{};
};

class Progress {
  public:
    explicit Progress(ProgressOptions options);
    /// Ends the line if finish() was not called (an exception), so that an error message starts on a new line.
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Sets the amount done (of `total`), and draws if the interval has passed.
    void update(double done);
    /// Text after the figures ("loss 2.31, lr 1e-4"), shown with the next drawing.
    void suffix(std::string text) { suffix_ = std::move(text); }
    /// Prints a separate line above the bar.
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

}  // namespace colonnade
