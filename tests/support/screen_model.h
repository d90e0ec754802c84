#pragma once
// A program at a terminal, and a model of the screen that shows what it writes.

#include "engine/device/terminal.h"
#include "tests/support/paths.h"
#include "tests/support/terminal.h"

namespace colonnade {

/// Lines of text, a cursor, and the codes that our programs use: \r, \n, ESC[K, ESC[...m. Anything else is a failure.
class ScreenModel {
  public:
    explicit ScreenModel(size_t columns) : columns_(columns) {}

    std::function<void(const std::string& line)> on_erase = [](const std::string&) {};  ///< the line before each ESC[K
    std::vector<std::string> lines{""};  ///< all of them, also what has scrolled away
    size_t wraps = 0;                    ///< lines that were longer than the screen is wide
    size_t colour_codes = 0;
    void resize(size_t columns) { columns_ = columns; }

    bool shows(const std::string& text) const {
        for (const std::string& line : lines)
            if (line.find(text) != line.npos) return true;
        return false;
    }
    std::string text() const {
        std::string all;
        for (const std::string& line : lines) all += line + '\n';
        return all;
    }
    size_t lines_with(const std::string& text) const {
        size_t count = 0;
        for (const std::string& line : lines) count += line.find(text) != line.npos;
        return count;
    }

    void feed(const std::string& bytes) {
        pending_ += bytes;
        size_t used = 0;
        while (used < pending_.size()) {
            const size_t length = length_of(std::string_view(pending_).substr(used));
            if (length == 0) break;  // the rest of a code is still to come
            put(pending_.substr(used, length));
            used += length;
        }
        pending_.erase(0, used);
    }

  private:
    static size_t length_of(std::string_view text) {
        const auto lead = static_cast<unsigned char>(text[0]);
        if (lead == 0x1b) {
            for (size_t i = 2; i < text.size(); ++i)
                if (text[i] >= '@' && text[i] <= '~') return i + 1;
            return 0;
        }
        const size_t bytes = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        return text.size() < bytes ? 0 : bytes;
    }

    void put(const std::string& piece) {
        std::string& line = lines.back();
        if (piece == "\r") {
            cursor_ = 0;
        } else if (piece == "\n") {
            lines.emplace_back();
            cursor_ = 0;
        } else if (piece == "\x1b[K") {
            line.resize(bytes_within(line, cursor_));
            on_erase(line);
        } else if (piece.ends_with("m") && piece[0] == '\x1b') {
            ++colour_codes;
        } else if (static_cast<unsigned char>(piece[0]) < 0x20) {
            ADD_FAILURE() << "an unexpected code: " << testing::PrintToString(piece);
        } else {
            wraps += cursor_ == columns_;
            const size_t begin = bytes_within(line, cursor_), end = bytes_within(line, cursor_ + 1);
            line.replace(begin, end - begin, piece);
            ++cursor_;
        }
    }

    size_t columns_, cursor_ = 0;
    std::string pending_;
};

/// One of our programs at a terminal, with the screen that it sees.
class ProgramOnTerminal {
  public:
    using Clock = Terminal::Clock;
    using Size = TerminalSize;

    /// `folder`: where it runs.
    ProgramOnTerminal(const std::string& name, const std::vector<std::string>& arguments, Size size,
                      const std::string& folder, const std::vector<std::pair<std::string, std::string>>& variables = {})
        : screen(size.columns),
          terminal_(
              program_path(name), arguments,
              [&] {
                  setenv("TERM", "xterm-256color", 1);
                  setenv("LC_ALL", "C.UTF-8", 1);
                  for (const char* variable : {"NO_COLOR", "CLICOLOR_FORCE"}) unsetenv(variable);
                  for (const auto& [variable, value] : variables) setenv(variable.c_str(), value.c_str(), 1);
                  if (chdir(folder.c_str()) != 0) _exit(126);
              },
              size) {}

    ScreenModel screen;

    /// Reads what the program writes until `done`, for at most so many seconds; false if that never came.
    bool read_until(const std::function<bool()>& done, double seconds = 100) {
        const auto end =
            Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
        while (!done()) {
            const std::string more = terminal_.read_some(end);
            if (more.empty()) return false;
            screen.feed(more);
        }
        return true;
    }
    bool read_until(const std::string& text, double seconds = 100) {
        return read_until([&] { return screen.shows(text); }, seconds);
    }
    void type(const std::string& keys) const { terminal_.type(keys); }
    void resize(Size size) {
        terminal_.resize(size);
        screen.resize(size.columns);
    }
    /// Reads to the end; returns the exit code, or 128 + signal.
    int wait() {
        read_until([] { return false; });
        return terminal_.wait();
    }

  private:
    Terminal terminal_;
};

}  // namespace colonnade
