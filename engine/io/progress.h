#pragma once
// Progress of long work, on stderr. On a terminal it is one line that redraws itself,
//
//     train  42% [########------------] 420/1000 steps, 2m 50s left, loss 2.31, lr 1.00e-04, 3.41 steps/s, 2m 03s
//
// which never has more columns than the terminal: first the bar shrinks, then fields are left out from the end, never
// in the middle of one. A thread redraws it, so that the time left runs on and a new width is seen during a long step.
//
// Elsewhere (a file, a pipe, CI) it is plain lines with the same text but no bar: one at the start, at most one every
// ten seconds, and one at the end. The rate and the time left are averages since the start.
//
// update(), fields(), print() and the others may be called from one thread at a time.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace colonnade {

/// What follows the counts, most important first: "loss 2.31", "lr 1.00e-04".
struct ProgressFields {
    std::vector<std::string> texts{};
    size_t kept = 0;  ///< so many, and the time left, stay when the unit and the percentage are left out
    /// "step 420/1000: loss 2.31, ..."
    std::string after(std::string_view head) const;
};

struct ProgressOptions {
    std::string label{};
    double total = 0;            ///< amount of work; 0: unknown (no bar, no time left)
    double initial = 0;          ///< work done before this run (when it resumes): not part of the rate
    std::string unit = "steps";  ///< what is counted; "B" counts bytes and prints them as MiB
    ProgressFields fields{};
    bool passing = false;  ///< a part of other work: no first and no last line; a terminal forgets it at the end
    std::function<double()> done{};  ///< the amount done, asked for at each drawing of a terminal, instead of update()
    // For tests; the default is stderr and its terminal.
    std::optional<bool> terminal{}, colours{};
    int columns = 0;                  ///< width of the terminal; 0: query it
    std::function<double()> clock{};  ///< seconds; if given, no thread redraws the line
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
    /// Shown with the next drawing.
    void fields(ProgressFields fields);
    /// Prints a separate line above the bar; on a terminal long ones continue on further lines.
    void print(std::string_view line);
    /// Prints fields.after(head); on a terminal with as many of the fields as the width holds.
    void print(std::string_view head, const ProgressFields& fields);
    /// Takes the line away until resume(): for a Progress of a part of the work.
    void pause();
    void resume();
    /// Draws the last state and ends the line.
    void finish();

  private:
    enum class Form { complete, brief };  ///< brief: without the unit and the percentage
    double left(double elapsed) const;
    std::string counts(size_t bar_width, Form form) const;
    std::vector<std::string> all_fields() const;
    std::string plain_text() const;
    std::string fitting_text() const;
    std::string painted(const std::string& text) const;
    size_t columns() const;
    void draw();
    void erase();
    void print_above(const std::string& line);
    void end_line();
    void stop_ticking();
    void tick();

    mutable std::mutex mutex_;
    ProgressOptions options_;
    bool terminal_ = false, colours_ = false, finished_ = false, line_open_ = false, paused_ = false;
    double done_ = 0, start_ = 0, drawn_at_ = 0, updated_at_ = 0;
    std::condition_variable ended_;
    std::thread ticker_;
};

}  // namespace colonnade
