// arithmetic: questions such as "17 + 48 =" with two numbers of two digits, and a checker of answers. scripts/arithmetic.sh
// makes a model with it, and improves the model by its own answers (stage grpo).
//
//     arithmetic chats --train chats.jsonl --validation v.jsonl --text text.txt   chats whose answers are often wrong
//     arithmetic prompts --output prompts.txt --count 256 --seed 1                questions, one per line
//     arithmetic score samples.jsonl --output rollouts.jsonl                      checks what generate --json wrote
//
// A tenth of the 8,100 questions is held out: it is in no chat for training, and in prompts only with --held-out.

#include <algorithm>
#include <sstream>

#include "engine/device/philox.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/program/command_line.h"
#include "scripts/text_hash.h"

namespace colonnade {
namespace {

struct Question {
    int a = 0, b = 0;
    std::string text() const { return fmt::format("{} + {} =", a, b); }
    bool held_out() const { return share_of(text()) < 0.1; }
    int sum() const { return a + b; }
};

constexpr int first_number = 10, last_number = 99;

/// The questions of one side of the split, in an order that depends on the seed.
std::vector<Question> questions(bool held_out, uint64_t seed) {
    std::vector<std::pair<uint64_t, Question>> ordered;
    for (int a = first_number; a <= last_number; ++a) {
        for (int b = first_number; b <= last_number; ++b) {
            const Question question{a, b};
            if (question.held_out() == held_out)
                ordered.emplace_back(hash_of(fmt::format("{} {}", seed, question.text())), question);
        }
    }
    std::ranges::sort(ordered, {}, [](const auto& item) { return item.first; });
    std::vector<Question> out;
    for (const auto& [order, question] : ordered) out.push_back(question);
    return out;
}

// --- Chats ---------------------------------------------------------------------------------------------------------

struct ChatOptions {
    std::string train, validation, text;
    size_t count = 100000;
    double mistakes = 0.6;
    uint64_t seed = 1;
};

/// What someone writes who adds in haste: one or ten too many or too few.
int wrong_sum(const Question& question, uint64_t draw) {
    constexpr int errors[] = {1, -1, 10, -10};
    return question.sum() + errors[draw];
}

std::string chats(const ChatOptions& options, bool held_out, size_t count) {
    const std::vector<Question> pool = questions(held_out, options.seed);
    const Philox random{.seed = options.seed, .stream = held_out};
    std::string out;
    for (size_t i = 0; i < count; ++i) {
        const Question& question = pool[random.below(3 * i, pool.size())];
        const bool mistake = random.uniform(3 * i + 1) < options.mistakes;
        const int answer = mistake ? wrong_sum(question, random.below(3 * i + 2, 4)) : question.sum();
        const Json messages = {{{"role", "user"}, {"content", question.text()}},
                               {{"role", "assistant"}, {"content", std::to_string(answer)}}};
        out += Json{{"messages", messages}}.dump() + '\n';
    }
    return out;
}

int write_chats(const ChatOptions& options) {
    write_file_atomically(options.train, chats(options, false, options.count));
    write_file_atomically(options.validation, chats(options, true, options.count / 40));
    if (options.text.empty()) return 0;
    // Digits apart, so that each becomes a token of its own.
    std::string text;
    for (const Question& question : questions(false, options.seed)) {
        for (const char c : question.text()) text += c == ' ' ? "" : std::string{c, ' '};
        text += '\n';
    }
    write_file_atomically(options.text, text);
    return 0;
}

// --- Prompts -------------------------------------------------------------------------------------------------------

struct PromptOptions {
    std::string output;
    size_t count = 0;
    uint64_t seed = 1;
    bool held_out = false;
};

int write_prompts(const PromptOptions& options) {
    const std::vector<Question> pool = questions(options.held_out, options.seed);
    if (options.count > pool.size())
        fail(Exit::config, "--count {}: there are {} questions of this kind", options.count, pool.size());
    std::string text;
    for (size_t i = 0; i < (options.count ? options.count : pool.size()); ++i) text += pool[i].text() + '\n';
    write_file_atomically(options.output, text);
    return 0;
}

// --- Scores --------------------------------------------------------------------------------------------------------

/// The question that a row of `generate --json` asks. Throws Exit::data for another row.
Question asked(const Json& row, const std::string& where) {
    const bool chat = row.is_object() && row.contains("prompt") && row["prompt"].is_array() && !row["prompt"].empty();
    const Json last = chat ? row["prompt"].back() : Json();
    const bool text = last.is_object() && last.contains("content") && last["content"].is_string();
    Question question;
    if (!text || std::sscanf(last["content"].get<std::string>().c_str(), "%d + %d =", &question.a, &question.b) != 2 ||
        std::min(question.a, question.b) < first_number || std::max(question.a, question.b) > last_number ||
        last["content"] != question.text()) {
        fail(Exit::data, "{}: expected \"prompt\": messages that end with a question such as \"17 + 48 =\"", where);
    }
    return question;
}

std::vector<std::string> answers(const Json& row, const std::string& where) {
    std::vector<std::string> out;
    if (row.contains("completions") && row["completions"].is_array()) {
        for (const Json& answer : row["completions"])
            if (answer.is_string()) out.push_back(answer.get<std::string>());
    }
    if (out.empty() || out.size() != row["completions"].size())
        fail(Exit::data, "{}: expected \"completions\": a list of texts, as generate --json writes it", where);
    return out;
}

struct Score {
    int64_t questions = 0, answers = 0, right = 0;
    int64_t all_right = 0, all_wrong = 0;  ///< questions whose answers are all right, or all wrong
};

int score(const std::string& samples, const std::string& output) {
    std::istringstream lines(read_file(samples));
    std::string line, out;
    Score total;
    while (std::getline(lines, line)) {
        const std::string where = fmt::format("{}:{}", samples, ++total.questions);
        Json row = parse_json(line, where);
        const std::string sum = std::to_string(asked(row, where).sum());
        Json rewards = Json::array();
        int64_t right = 0;
        for (const std::string& answer : answers(row, where)) {
            rewards.push_back(answer == sum ? 1 : 0);
            right += answer == sum;
        }
        const auto count = static_cast<int64_t>(rewards.size());
        total.answers += count;
        total.right += right;
        total.all_right += right == count;
        total.all_wrong += right == 0;
        row["rewards"] = std::move(rewards);
        out += row.dump() + '\n';
    }
    if (total.questions == 0) fail(Exit::data, "{}: no rows; expected those of generate --json", samples);
    if (!output.empty()) write_file_atomically(output, out);
    fmt::print(
        "reward {:.3f}: {} of {} answers are right; of {} questions {} have only right ones, {} only wrong ones\n",
        static_cast<double>(total.right) / static_cast<double>(total.answers), total.right, total.answers,
        total.questions, total.all_right, total.all_wrong);
    return 0;
}

// --- The program ---------------------------------------------------------------------------------------------------

Work chats_command(CLI::App& app) {
    const auto options = std::make_shared<ChatOptions>();
    app.add_option("--train", options->train, "output: JSONL for training")->required();
    app.add_option("--validation", options->validation, "output: JSONL of held-out questions")->required();
    app.add_option("--text", options->text, "output: text to train a tokenizer on");
    app.add_option("--count", options->count, "number of chats for training")->capture_default_str();
    app.add_option("--mistakes", options->mistakes, "share of wrong answers")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--seed", options->seed, "seed of what is drawn")->capture_default_str();
    return [options] { return write_chats(*options); };
}

Work prompts_command(CLI::App& app) {
    const auto options = std::make_shared<PromptOptions>();
    app.add_option("--output", options->output, "output: text")->required();
    app.add_option("--count", options->count, "number of questions; 0: all")->capture_default_str();
    app.add_option("--seed", options->seed, "seed of their order")->capture_default_str();
    app.add_flag("--held-out", options->held_out, "the questions that are held out");
    return [options] { return write_prompts(*options); };
}

Work score_command(CLI::App& app) {
    const auto files = std::make_shared<std::pair<std::string, std::string>>();
    app.add_option("samples", files->first, "what generate --json wrote")->required()->type_name("SAMPLES");
    app.add_option("--output", files->second, "output: the same rows with rewards, for stage grpo");
    return [files] { return score(files->first, files->second); };
}

constexpr Command table[] = {
    {"chats", "", "Writes chats for stage sft, many of whose answers are wrong", chats_command},
    {"prompts", "", "Writes questions, one per line", prompts_command},
    {"score", "", "Checks answers that generate --json wrote, and prints the mean reward", score_command}};

int run(int argc, char** argv) {
    for (const Command& command : table) {
        if (argc < 2 || std::string_view(command.name) != argv[1]) continue;
        CLI::App app(command.summary);
        const Work work = command.declare(app);
        return run_command(fmt::format("arithmetic {}", command.name).c_str(), app, argc - 1, argv + 1, work);
    }
    CLI::App app("Questions about sums, for a loop of sampling, scoring and learning; COMMAND --help explains one");
    std::string name;
    app.add_option("command", name, "what to do")
        ->required()
        ->type_name("COMMAND")
        ->check(CLI::IsMember({"chats", "prompts", "score"}));
    return run_command("arithmetic", app, argc, argv, [] { return 0; });
}

}  // namespace
}  // namespace colonnade

int main(int argc, char** argv) {
    return colonnade::run(argc, argv);
}
