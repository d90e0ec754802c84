// chat: a conversation with a model. Ctrl-C stops an answer, Ctrl-D ends the program.

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <iostream>

#include "train/generation/answer_text.h"
#include "train/generation_options.h"

namespace colonnade {
namespace {

volatile sig_atomic_t interrupted = 0;
void on_interrupt(int) {
    interrupted = 1;
}
/// Without SA_RESTART, so that Ctrl-C also ends a wait for input.
void catch_interrupts() {
    struct sigaction action = {};
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, nullptr);
}

constexpr const char* help =
    "/reset         forgets the conversation; the system message stays\n"
    "/system TEXT   sets the system message and forgets the conversation; without TEXT, removes it\n"
    "/help          shows this\n"
    "//TEXT         sends /TEXT\n"
    "Ctrl-C stops an answer, Ctrl-D ends the program.\n";

class Conversation {
  public:
    explicit Conversation(GenerationOptions& options)
        : options_(options),
          open_(open_model(options)),
          generator_(open_.model->config(), open_.model->weights(),
                     {.max_length = max_length(),
                      .batch = 1,
                      .lora = open_.model->lora(),
                      .gpu = open_.gpu.get(),
                      .reuse_cache = true}),
          at_terminal_(isatty(STDIN_FILENO) != 0) {
        reset();
    }

    void run() {
        if (at_terminal_)
            fmt::print("{}, up to {} tokens; /help lists the commands\n", options_.load.model, max_length());
        for (std::string line; next_line(line);) {
            if (line.starts_with("/") && !line.starts_with("//"))
                command(line);
            else if (!line.empty())
                answer(line.starts_with("//") ? line.substr(1) : line);
        }
        if (at_terminal_) fmt::print("\n");
    }

  private:
    int64_t max_length() const {
        const int64_t limit = open_.model->config().max_position_embeddings;
        return options_.max_length ? options_.max_length : std::min<int64_t>(limit, 4096);
    }

    void reset() {
        messages_.clear();
        if (!options_.system.empty()) messages_.push_back({"system", options_.system, {}});
    }

    /// False at the end of the input. Ctrl-C drops the line that was begun.
    bool next_line(std::string& line) {
        while (true) {
            interrupted = 0;
            if (at_terminal_) fmt::print("> ");
            std::fflush(stdout);
            errno = 0;
            if (std::getline(std::cin, line)) return true;
            if (!interrupted) return false;
            std::cin.clear();
            std::clearerr(stdin);
            fmt::print("\n");
        }
    }

    void command(const std::string& line) {
        const size_t space = line.find(' ');
        const std::string name = line.substr(0, space);
        if (name == "/help") {
            fmt::print("{}", help);
        } else if (name == "/reset") {
            reset();
        } else if (name == "/system") {
            options_.system = space == std::string::npos ? "" : line.substr(line.find_first_not_of(' ', space));
            reset();
        } else {
            fmt::print(stderr, "{}: no such command; /help lists them\n", name);
        }
    }

    void answer(const std::string& text) {
        messages_.push_back({"user", text, {}});
        Request request{.prompt = open_.model->encoder().encode_prompt(messages_), .options = options_.generate};
        if (const auto length = std::ssize(request.prompt); length >= max_length()) {
            fmt::print(stderr, "the conversation has {} tokens, of at most {}: /reset forgets it\n", length,
                       max_length());
            messages_.pop_back();
            return;
        }
        AnswerText answer(*open_.model->encoder().tokenizer(), options_.stops);
        std::string all;
        const auto show = [&](const std::string& piece) {
            all += piece;
            fmt::print("{}", piece);
            std::fflush(stdout);
        };
        using Clock = std::chrono::steady_clock;
        const auto start = Clock::now();
        auto first = start;
        request.on_token = [&](int32_t token) {
            if (first == start) first = Clock::now();
            show(answer.add(token));
            return !interrupted && !answer.stopped();
        };
        const Answer result = generator_.answer(open_.context(), {&request, 1}).front();
        show(answer.finish());
        const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
        messages_.push_back({"assistant", all, {}});
        fmt::print("\n");
        std::fflush(stdout);
        report(result, std::ssize(request.prompt), seconds(start, first), seconds(first, Clock::now()));
    }

    void report(const Answer& result, int64_t prompt, double reading, double writing) const {
        const auto tokens = std::ssize(result.tokens);
        const char* const end = interrupted                               ? ", stopped"
                                : result.end == AnswerEnd::max_new_tokens ? ", cut at --max-new-tokens"
                                : result.end == AnswerEnd::cache_full     ? ", cut at --max-length"
                                                                          : "";
        const double rate = writing > 0 && tokens > 1 ? static_cast<double>(tokens - 1) / writing : 0;
        fmt::print(stderr, "[{} tokens{}, {:.1f} tokens/s; {} of {} tokens read in {:.2f} s]\n", tokens, end, rate,
                   prompt - result.reused, prompt, reading);
    }

    GenerationOptions& options_;
    OpenModel open_;
    Generator generator_;
    bool at_terminal_;
    std::vector<Message> messages_;
};

}  // namespace

Work chat_command(CLI::App& app) {
    const auto options = std::make_shared<GenerationOptions>();
    options->generate.max_new_tokens = 1024;
    options->declare(app);
    return [options] {
        catch_interrupts();
        Conversation(*options).run();
        return 0;
    };
}

}  // namespace colonnade
