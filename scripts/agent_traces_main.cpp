// agent_traces: chats of an agent that answers questions about a small folder of files with four tools. The world is made
// up from the seed; tools really run in it, and the agent acts upon what they return, not upon what the world knows.
//
//     {"messages":[{"role":"system",...},{"role":"user","content":"How many pears are there in all towns?"},
//                  {"role":"assistant","reasoning_content":"...","content":"","tool_calls":[{"type":"function",
//                   "function":{"name":"grep","arguments":{"pattern":"pears","path":"/stock"}}}]},
//                  {"role":"tool","name":"grep","content":"/stock/Bergen.txt: pears 12\n..."}, ...],
//      "tools":[...]}
//
// A chat has several questions. Templates such as configs/agent.jinja drop the reasoning before the last question, so that
// each chat becomes a tree (docs/data.md, `history`).

#include <map>
#include <sstream>

#include "engine/device/philox.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/program/command_line.h"

namespace colonnade {
namespace {

constexpr const char* towns[] = {"Bergen", "Bodo",  "Drammen", "Halden", "Hamar",
                                 "Larvik", "Molde", "Narvik",  "Oslo",   "Skien"};
constexpr const char* goods[] = {"apples", "candles", "hammers", "lamps", "nails", "pears", "ropes", "saws"};

/// A file's text as lines, without line ends.
std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

/// Random numbers of one chat, one after the other.
class Draws {
  public:
    Draws(uint64_t seed, uint64_t chat) : random_{.seed = seed, .stream = chat} {}
    int64_t below(size_t n) { return static_cast<int64_t>(random_.below(next_++, n)); }
    template <size_t n>
    std::string one_of(const char* const (&names)[n]) {
        return names[below(n)];
    }

  private:
    Philox random_;
    uint64_t next_ = 0;
};

// --- The world -----------------------------------------------------------------------------------------------------

/// Files by path: /prices.txt, and /stock/TOWN.txt for some of the towns. Lines are "apples 12".
class World {
  public:
    explicit World(Draws& draws) {
        for (const char* name : goods) files_["/prices.txt"] += fmt::format("{} {}\n", name, 2 + draws.below(18));
        for (const char* town : towns) {
            if (draws.below(2) == 0 && files_.size() > 2) continue;
            std::string& stock = files_[fmt::format("/stock/{}.txt", town)];
            for (const char* name : goods)
                if (draws.below(4) > 0) stock += fmt::format("{} {}\n", name, 1 + draws.below(60));
        }
    }
    std::string run(const std::string& tool, const Json& arguments) const {
        if (tool == "ls") return list(arguments.at("path"));
        if (tool == "cat") return show(arguments.at("path"));
        if (tool == "grep") return search(arguments.at("pattern"), arguments.at("path"));
        return calculate(arguments.at("expression"));
    }

  private:
    std::string list(const std::string& path) const {
        std::string out;
        for (const auto& [name, text] : files_)
            if (name.starts_with(path + "/")) out += name.substr(path.size() + 1) + "\n";
        return out.empty() ? "no such folder" : out;
    }
    std::string show(const std::string& path) const {
        const auto found = files_.find(path);
        return found == files_.end() ? "no such file" : found->second;
    }
    /// Lines that contain the pattern, behind their file, of all files that begin with this path.
    std::string search(const std::string& pattern, const std::string& path) const {
        std::string out;
        for (const auto& [name, text] : files_) {
            if (!name.starts_with(path)) continue;
            for (const std::string& line : lines_of(text))
                if (line.find(pattern) != std::string::npos) out += fmt::format("{}: {}\n", name, line);
        }
        return out.empty() ? "no match" : out;
    }
    /// Whole numbers between which + or * stands, from left to right.
    static std::string calculate(const std::string& expression) {
        std::istringstream in(expression);
        int64_t result = 0, number = 0;
        in >> result;
        for (char sign = 0; in >> sign >> number;) result = sign == '*' ? result * number : result + number;
        return std::to_string(result);
    }

    std::map<std::string, std::string> files_;
};

Json tool(const char* name, const char* description, const std::vector<const char*>& parameters) {
    Json properties = Json::object();
    for (const char* parameter : parameters) properties[parameter] = {{"type", "string"}};
    return {{"type", "function"},
            {"function",
             {{"name", name},
              {"description", description},
              {"parameters", {{"type", "object"}, {"properties", properties}, {"required", parameters}}}}}};
}

Json tools() {
    return Json::array(
        {tool("ls", "Lists the files of a folder.", {"path"}), tool("cat", "Shows a file.", {"path"}),
         tool("grep", "Shows the lines with a text, of a file or of all files in a folder.", {"pattern", "path"}),
         tool("calc", "Adds or multiplies whole numbers.", {"expression"})});
}

// --- The agent -----------------------------------------------------------------------------------------------------

class Agent {
  public:
    explicit Agent(const World& world) : world_(world) {
        messages_.push_back({{"role", "system"},
                             {"content",
                              "You answer questions about the stock of a trading company. /stock has a file for each "
                              "town with a line for each kind of goods, /prices.txt the price of a piece. Look things "
                              "up, and calculate with the tool. Answer in one sentence."}});
    }
    /// Asks and answers one question.
    void ask(Draws& draws) {
        const std::string town = draws.one_of(towns), what = draws.one_of(goods);
        switch (draws.below(4)) {
            case 0:
                return count(town, what);
            case 1:
                return worth(town, what);
            case 2:
                return total(what);
            default:
                return most(what);
        }
    }
    Json take_messages() { return std::move(messages_); }

  private:
    void count(const std::string& town, const std::string& what) {
        user(fmt::format("How many {} are there in {}?", what, town));
        const int64_t pieces = stock(town, what);
        if (pieces < 0) return;
        answer(fmt::format("The line of {} says {}.", what, pieces),
               fmt::format("There are {} {} in {}.", pieces, what, town));
    }
    void worth(const std::string& town, const std::string& what) {
        user(fmt::format("What are the {} in {} worth?", what, town));
        const int64_t pieces = stock(town, what);
        if (pieces < 0) return;
        const std::string line = call(fmt::format("There are {} {}. Now the price of one.", pieces, what), "grep",
                                      {{"pattern", what}, {"path", "/prices.txt"}});
        const int64_t price = number_at_end(line);
        const std::string product = call(fmt::format("{} pieces at {} each.", pieces, price), "calc",
                                         {{"expression", fmt::format("{} * {}", pieces, price)}});
        answer(fmt::format("The product is {}.", product),
               fmt::format("The {} in {} are worth {}.", what, town, product));
    }
    void total(const std::string& what) {
        user(fmt::format("How many {} are there in all towns?", what));
        std::vector<int64_t> pieces;
        for (const std::string& line : lines_of(everywhere(what))) pieces.push_back(number_at_end(line));
        if (pieces.empty()) return answer("No town has any.", fmt::format("There are no {} in any town.", what));
        std::string sum = std::to_string(pieces[0]);
        if (pieces.size() > 1)
            sum = call(fmt::format("{} towns have {}. I add them up.", pieces.size(), what), "calc",
                       {{"expression", fmt::format("{}", fmt::join(pieces, " + "))}});
        answer(fmt::format("All together: {}.", sum), fmt::format("There are {} {} in all towns.", sum, what));
    }
    void most(const std::string& what) {
        user(fmt::format("Which town has the most {}?", what));
        int64_t largest = 0;
        std::string town;
        for (const std::string& line : lines_of(everywhere(what))) {
            if (number_at_end(line) <= largest) continue;
            largest = number_at_end(line);
            town = line.substr(7, line.find('.') - 7);  // "/stock/Oslo.txt: pears 12"
        }
        if (town.empty()) return answer("No town has any.", fmt::format("No town has {}.", what));
        answer(fmt::format("The largest number is {}, in the file of {}.", largest, town),
               fmt::format("{} has the most {}: {}.", town, what, largest));
    }

    /// Finds the town's file and in it the pieces of these goods. If there are none, answers so and returns -1.
    int64_t stock(const std::string& town, const std::string& what) {
        const std::string path = fmt::format("/stock/{}.txt", town);
        const std::string files = call(fmt::format("I look whether {} has a file.", town), "ls", {{"path", "/stock"}});
        if (files.find(town) == std::string::npos) {
            answer(fmt::format("There is no file of {}.", town), fmt::format("{} has no stock.", town));
            return -1;
        }
        const std::string text =
            call(fmt::format("It has: {}.txt. The line of {} says the number.", town, what), "cat", {{"path", path}});
        for (const std::string& line : lines_of(text))
            if (line.starts_with(what + ' ')) return number_at_end(line);
        answer(fmt::format("The file has no line of {}.", what), fmt::format("There are no {} in {}.", what, town));
        return -1;
    }
    /// The lines about these goods in the files of all towns, or "".
    std::string everywhere(const std::string& what) {
        const std::string found = call(fmt::format("I need the lines of {} in the files of all towns.", what), "grep",
                                       {{"pattern", what}, {"path", "/stock"}});
        return found == "no match" ? "" : found;
    }
    static int64_t number_at_end(const std::string& line) { return std::stoll(line.substr(line.rfind(' ') + 1)); }

    void user(const std::string& text) { messages_.push_back({{"role", "user"}, {"content", text}}); }
    void answer(const std::string& thought, const std::string& text) {
        messages_.push_back({{"role", "assistant"}, {"reasoning_content", thought}, {"content", text}});
    }
    /// Calls a tool and returns what it answers.
    std::string call(const std::string& thought, const char* name, const Json& arguments) {
        const Json function = {{"name", name}, {"arguments", arguments}};
        messages_.push_back({{"role", "assistant"},
                             {"reasoning_content", thought},
                             {"content", ""},
                             {"tool_calls", Json::array({Json{{"type", "function"}, {"function", function}}})}});
        std::string result = world_.run(name, arguments);
        messages_.push_back({{"role", "tool"}, {"name", name}, {"content", result}});
        return result;
    }

    const World& world_;
    Json messages_ = Json::array();
};

// --- The program ---------------------------------------------------------------------------------------------------

struct Options {
    std::string train, validation;
    int64_t chats = 1000, questions = 4;
    uint64_t seed = 1;
};

/// Every 20th chat is held out; each has a world of its own.
int write_chats(const Options& options) {
    std::string train, validation;
    int64_t calls = 0, turns = 0;
    for (int64_t i = 0; i < options.chats; ++i) {
        Draws draws(options.seed, static_cast<uint64_t>(i));
        const World world(draws);
        Agent agent(world);
        for (int64_t question = 0; question < options.questions; ++question) agent.ask(draws);
        const Json row = {{"messages", agent.take_messages()}, {"tools", tools()}};
        for (const Json& message : row["messages"]) {
            calls += message["role"] == "tool";
            turns += message["role"] == "assistant";
        }
        (i % 20 == 19 ? validation : train) += row.dump() + '\n';
    }
    write_file_atomically(options.train, train);
    write_file_atomically(options.validation, validation);
    fmt::print("{} chats, {} questions, {} calls of tools, {} messages of the agent\n", options.chats,
               options.chats * options.questions, calls, turns);
    return 0;
}

int run(int argc, char** argv) {
    Options options;
    CLI::App app("Writes chats of an agent that looks things up with tools");
    app.add_option("--train", options.train, "output: JSONL for training")->required();
    app.add_option("--validation", options.validation, "output: JSONL for validation, every 20th chat")->required();
    app.add_option("--chats", options.chats, "number of chats in both files")
        ->check(CLI::Range(1, 1000000))
        ->capture_default_str();
    app.add_option("--questions", options.questions, "questions of a chat")
        ->check(CLI::Range(1, 100))
        ->capture_default_str();
    app.add_option("--seed", options.seed, "seed of worlds and questions")->capture_default_str();
    return run_command("agent_traces", app, argc, argv, [&] { return write_chats(options); });
}

}  // namespace
}  // namespace colonnade

int main(int argc, char** argv) {
    return colonnade::run(argc, argv);
}
