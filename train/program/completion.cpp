#include "train/program/completion.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "data/rows/files/data_files.h"
#include "engine/hub/hub_settings.h"
#include "engine/io/home_path.h"
#include "engine/program/help.h"
#include "train/config/keys.h"
#include "train/program/commands.h"
#include "train/run/run_arguments.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;
using Candidates = std::vector<Candidate>;

constexpr size_t most_entries = 10'000;  // of a folder

bool is_kind(const std::string& name, const std::string& kind) {
    if (kind == "MODEL") return name.ends_with(".gguf");
    if (kind == "DATA") return is_data_file(name);
    if (kind == "CONFIG.yaml") return name.ends_with(".yaml") || name.ends_with(".yml");
    return kind == "FILE";
}
bool takes_path(const std::string& kind) {
    const auto kinds = {"MODEL", "DATA", "CONFIG.yaml", "FILE", "FOLDER", "CHECKPOINT"};
    return std::ranges::find(kinds, kind) != kinds.end();
}

/// Files of a kind, and folders. Hidden ones only if the word names them.
void add_paths(const std::string& word, const std::string& kind, const std::string& before, Candidates& all) {
    const std::string folder = word.substr(0, word.rfind('/') + 1), begin = word.substr(folder.size());
    std::error_code error;
    size_t entries = 0;
    for (fs::directory_iterator at(folder.empty() ? "." : expand_home(folder), error), end; !error && at != end;
         at.increment(error)) {
        if (++entries > most_entries) return;
        const std::string name = at->path().filename();
        std::error_code none;
        const bool inside = at->is_directory(none);
        if (!name.starts_with(begin) || (begin.empty() && name.starts_with('.'))) continue;
        if (inside || is_kind(name, kind)) all.push_back({before + folder + name + (inside ? "/" : ""), ""});
    }
}

/// Names in the cache of the hub.
void add_hub_names(const std::string& word, const std::string& kind, const std::string& before, Candidates& all) {
    const std::string folder_of_kind = kind == "MODEL" ? "models--" : "datasets--";
    std::error_code error;
    size_t entries = 0;
    for (fs::directory_iterator at(hub_settings().cache, error), end; !error && at != end; at.increment(error)) {
        if (++entries > most_entries) return;
        std::string name = at->path().filename();
        if (!name.starts_with(folder_of_kind)) continue;
        name.erase(0, folder_of_kind.size());
        const size_t slash = name.find("--");
        if (slash != name.npos) name.replace(slash, 2, "/");
        if (name.starts_with(word)) all.push_back({before + name, "in the hub's cache"});
    }
}

/// Values of a kind; `before` precedes them in the word.
void add_values(const std::string& word, const std::string& kind, const std::string& before, Candidates& all) {
    if (!takes_path(kind)) return;
    add_paths(word, kind, before, all);
    if (kind == "MODEL" || kind == "DATA") add_hub_names(word, kind, before, all);
}

void add_words(const std::vector<std::string>& words, const std::string& word, const std::string& before,
               Candidates& all) {
    for (const std::string& w : words)
        if (w.starts_with(word)) all.push_back({before + w, ""});
}

// --- keys of the config ---

/// The values that a key's description lists: "one of sft, dpo", "true or false", "a list of jsonl, csv; or none".
std::vector<std::string> listed_values(std::string what) {
    what = what.substr(0, what.find("; also "));
    if (what.starts_with("true or false")) return {"true", "false"};
    const bool list = what.starts_with("a list of ");
    if (!list && !what.starts_with("one of ")) return {};
    what = what.substr(list ? 10 : 7);
    what = what.substr(0, what.find("; or none"));
    std::vector<std::string> values;
    std::istringstream text(what);
    for (std::string value; std::getline(text, value, ',');) {
        value.erase(0, value.find_first_not_of(' '));
        if (value.find(' ') == value.npos && value != "text") values.push_back(value);
    }
    return values;
}

/// What the value of a key is, beside the values that it lists.
std::string kind_of_key(const std::string& key) {
    if (key.ends_with("name_or_path")) return "MODEL";
    if (key.starts_with("datasets[") || key.starts_with("eval_datasets[")) return key.ends_with("].path") ? "DATA" : "";
    const auto folders = {"output_dir", "prepared_path", "resume_from_checkpoint"};
    return std::ranges::find(folders, key) != folders.end() ? "FOLDER" : "";
}

std::vector<KeyText> all_keys() {
    std::vector<KeyText> keys;
    for (const Section& section : config_sections()) {
        for (const KeyText& key : describe_keys(section.keys, "")) keys.push_back(key);
        keys.insert(keys.end(), section.nested.begin(), section.nested.end());
    }
    return keys;
}

/// "datasets[0].path" is described as "datasets[].path".
std::string without_index(const std::string& key) {
    const size_t open = key.find('['), close = key.find(']');
    return open == key.npos || close == key.npos || close < open ? key : key.substr(0, open + 1) + key.substr(close);
}

void add_key_values(const std::string& key, const std::string& word, const std::string& before, Candidates& all) {
    std::string described = without_index(key);
    if (described.starts_with("eval_datasets[]")) described.erase(0, 5);
    for (const KeyText& k : all_keys()) {
        if (k.name != canonical_key(described)) continue;
        std::string value = word, start = before;
        if (const size_t comma = word.rfind(','); k.what.starts_with("a list of ") && comma != word.npos) {
            start += word.substr(0, comma + 1);
            value = word.substr(comma + 1);
        }
        add_words(listed_values(k.what), value, start, all);
        add_values(value, kind_of_key(key), start, all);
    }
}

/// Keys as `key=`, or as --key in the spelling that the word has. Those of a map inside come when the word names it.
void add_keys(const std::string& word, Candidates& all) {
    const bool dashed = word.starts_with("--");
    const std::string name = dashed ? word.substr(2) : word;
    const bool underscores = name.find('_') != name.npos;
    for (const KeyText& key : all_keys()) {
        std::string text = key.name;
        if (const size_t open = text.find("[]"); open != text.npos) text.insert(open + 1, "0");
        if (text.find('.') != text.npos && name.find_first_of(".[") == name.npos) continue;
        if (dashed && !underscores) std::ranges::replace(text, '_', '-');
        if (!text.starts_with(name)) continue;
        all.push_back({dashed ? "--" + text : text + '=', first_sentence(key.doc)});
    }
}

// --- one command ---

/// The words before the one that is typed, read as its command reads them.
struct Before {
    std::vector<std::string> arguments;  ///< neither options nor keys
    const OptionHelp* option = nullptr;  ///< whose value is typed
    std::string key;                     ///< the key whose value is typed, after --key
};

Before read_words(const std::vector<std::string>& words, const std::vector<OptionHelp>& options, bool takes_keys) {
    Before before;
    for (size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto option =
            std::ranges::find_if(options, [&](const OptionHelp& o) { return std::ranges::count(o.names, word) > 0; });
        const bool last = i + 1 == words.size();
        if (option != options.end() && option->value.empty()) continue;
        if (option != options.end() && last) {
            before.option = &*option;
        } else if (option != options.end()) {
            ++i;
        } else if (takes_keys && word.starts_with("--") && word.find('=') == word.npos) {
            if (last) before.key = word.substr(2);
            ++i;
        } else if (!word.starts_with('-') && !(takes_keys && !split_run_arguments({word}).keys.empty())) {
            before.arguments.push_back(word);
        }
    }
    std::ranges::replace(before.key, '-', '_');
    return before;
}

/// A config, or a model and data, or keys.
void add_run_arguments(const std::vector<std::string>& before, const std::string& word, Candidates& all) {
    if (before.empty()) {
        add_paths(word, "CONFIG.yaml", "", all);
        add_values(word, "MODEL", "", all);
        return;
    }
    const bool config = is_kind(before[0], "CONFIG.yaml");
    if (!config) add_values(word, "DATA", "", all);
    if (config || before.size() > 1 || !word.empty()) add_keys(word, all);
}

void add_arguments(const Command& command, const std::vector<OptionHelp>& options, const Before& before,
                   const std::string& word, Candidates& all) {
    const std::string name = command.name;
    if (std::string_view(command.arguments) == run_argument_forms)
        return add_run_arguments(before.arguments, word, all);
    if (name == "help") {
        std::vector<std::string> words = before.arguments;
        words.push_back(word);
        for (const Candidate& c : complete(words))
            if (!c.text.starts_with('-')) all.push_back(c);
        return;
    }
    size_t passed = before.arguments.size();
    for (const OptionHelp& option : options) {
        if (!option.names.empty()) continue;
        if (passed == 0 || option.several) {
            add_words(option.choices, word, "", all);
            add_values(word, option.value, "", all);
            break;
        }
        --passed;
    }
}

Candidates complete_command(const Command& command, const std::vector<std::string>& words, const std::string& word) {
    Candidates all;
    CLI::App app;
    command.declare(app);
    declare_usual_flags(app, command.name);
    const bool takes_keys = app.get_allow_extras() && std::string_view(command.name) != "help";
    const std::vector<OptionHelp> options = describe_options(app);
    const Before before = read_words(words, options, takes_keys);
    const size_t equals = word.find('=');
    if (before.option) {
        add_words(before.option->choices, word, "", all);
        add_values(word, before.option->value, "", all);
    } else if (!before.key.empty()) {
        add_key_values(before.key, word, "", all);
    } else if (takes_keys && equals != word.npos && !split_run_arguments({word}).keys.empty()) {
        std::string key = word.substr(0, equals);
        if (key.starts_with("--")) key.erase(0, 2), std::ranges::replace(key, '-', '_');
        add_key_values(key, word.substr(equals + 1), word.substr(0, equals + 1), all);
    } else if (word.starts_with('-')) {
        for (const OptionHelp& option : options)
            for (const std::string& name : option.names)
                if (name.starts_with(word) && name.starts_with("--")) all.push_back({name, option.entry.text});
        if (takes_keys && word.starts_with("--")) add_keys(word, all);
    } else {
        add_arguments(command, options, before, word, all);
        if (takes_keys && *command.arguments == '\0' && !before.arguments.empty()) add_keys(word, all);
    }
    return all;
}

/// Commands whose name goes on from these words.
Candidates next_words(const std::vector<std::string>& words, const std::string& word) {
    std::string begin;
    for (const std::string& w : words) begin += w + ' ';
    Candidates all;
    std::set<std::string> seen;
    for (const Command& command : commands()) {
        const std::string name = command.name;
        if (command.hidden || !name.starts_with(begin + word)) continue;
        const std::string rest = name.substr(begin.size()), next = rest.substr(0, rest.find(' '));
        if (seen.insert(next).second) all.push_back({next, next == rest ? command.summary : ""});
    }
    if (words.empty())
        for (const char* flag : {"--help", "--version"})
            if (std::string(flag).starts_with(word) && word.starts_with('-')) all.push_back({flag, ""});
    return all;
}

}  // namespace

std::vector<Candidate> complete(const std::vector<std::string>& words) {
    std::vector<const char*> argv = {"colonnade"};
    for (size_t i = 0; i + 1 < words.size(); ++i) argv.push_back(words[i].c_str());
    argv.push_back(nullptr);
    const std::string word = words.empty() ? "" : words.back();
    const CommandMatch match = match_command(argv.data());
    std::vector<std::string> before(words.begin(), words.empty() ? words.end() : words.end() - 1);
    Candidates all = match.command
                         ? complete_command(*match.command, {before.begin() + match.words - 1, before.end()}, word)
                         : next_words(before, word);
    std::ranges::stable_sort(all, {}, &Candidate::text);
    const auto [first, last] = std::ranges::unique(all, {}, &Candidate::text);
    all.erase(first, last);
    return all;
}

}  // namespace colonnade
