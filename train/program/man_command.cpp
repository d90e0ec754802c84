// man: prints the manual page, in the language of man(7), from the tables of commands, options and keys.

#include "engine/device/version.h"
#include "engine/io/files.h"
#include "engine/program/help.h"
#include "train/config/keys.h"
#include "train/program/commands.h"

namespace colonnade {
namespace {

/// Text as roff prints it.
std::string roff(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '.' && (out.empty() || out.back() == '\n')) out += "\\&";
        if (c == '\\')
            out += "\\e";
        else if (c == '-')
            out += "\\-";
        else if (c == '\'')
            out += "\\(aq";
        else if (c == '`')
            out += "\\(ga";
        else if (c == '^')
            out += "\\(ha";
        else if (c == '~')
            out += "\\(ti";
        else
            out += c;
    }
    return out;
}

/// A paragraph in short lines.
std::string prose(const std::string& text) {
    return roff(wrapped(text, 0, 70));
}

std::string entry(const std::string& term, const std::string& text) {
    return ".TP\n\\fB" + roff(term) + "\\fR\n" + prose(text);
}

std::string command_part(const Command& command) {
    const std::string name = std::string("colonnade ") + command.name;
    CLI::App app{command.summary, name};
    command.declare(app);
    std::string text = fmt::format(".SS \"{}\"\n", roff(name));
    for (const std::string& form : usage_forms(command.arguments, app))
        text += fmt::format("\\fB{}\\fR [options]{}{}\n.br\n", roff(name), form.empty() ? "" : " ", roff(form));
    text += prose(std::string(command.summary) + '.');
    for (const HelpEntry& e : described_arguments(command.arguments)) text += entry(e.term, e.text);
    for (const OptionHelp& option : describe_options(app))
        if (option.entry.term.find("--help") == std::string::npos) text += entry(option.entry.term, option.entry.text);
    if (!app.get_footer().empty()) text += ".PP\n" + prose(app.get_footer());
    return text;
}

std::string key_parts() {
    std::string text;
    const auto add = [&](const KeyText& key) {
        const std::string value = key.default_text.empty() ? "" : fmt::format(" [{}]", key.default_text);
        text += entry(key.name + value, fmt::format("{} ({})", key.doc, key.what));
    };
    for (const Section& section : config_sections()) {
        text += fmt::format(".SS \"{}\"\n", roff(section.title));
        for (const KeyText& key : describe_keys(section.keys, "")) add(key);
        for (const KeyText& key : section.nested) add(key);
    }
    return text;
}

struct Fact {
    const char *term, *text;
};
constexpr Fact exit_codes[] = {{"0", "Done."},
                               {"1", "doctor: something is wrong with the machine."},
                               {"2", "Config or usage."},
                               {"3", "A data or model file."},
                               {"4", "Numerics: a value that is not a number, or a check that failed."},
                               {"5", "Another rank or the device was lost."},
                               {"7", "Storage: a file could not be written or read."},
                               {"8", "Not enough memory."},
                               {"9", "A bug in Colonnade."}};
constexpr Fact variables[] = {
    {"HF_HOME, HF_HUB_CACHE", "Folder of the hub's cache, shared with Hugging Face's programs."},
    {"HF_TOKEN, HF_ENDPOINT", "Access token and address of the hub."},
    {"HF_HUB_OFFLINE", "1: no connection is made; names are looked up in the cache."},
    {"OMP_NUM_THREADS", "CPU threads, if neither the key threads nor the option says it."},
    {"OMP_WAIT_POLICY, GOMP_SPINCOUNT", "How idle threads wait. By default they sleep soon."}};

std::string facts(std::span<const Fact> list) {
    std::string text;
    for (const Fact& fact : list) text += entry(fact.term, fact.text);
    return text;
}

std::string manual() {
    std::string page = fmt::format(
        ".TH COLONNADE 1 \"{}\" \"Colonnade {}\" \"User Commands\"\n"
        ".SH NAME\ncolonnade \\- fine\\-tunes language models on packed rows\n"
        ".SH SYNOPSIS\n\\fBcolonnade\\fR \\fICOMMAND\\fR [options]\n"
        ".SH DESCRIPTION\n"
        "Colonnade trains and fine\\-tunes decoder language models on rows that hold\nmany samples, kept apart by a "
        "mask of attention.\n"
        ".PP\n.nf\n"
        "colonnade train org/model chats.jsonl\n"
        "colonnade init org/model chats.jsonl \\-o my.yaml\n"
        "colonnade train my.yaml\n"
        "colonnade chat runs/my\n"
        "mpirun \\-np 2 \\-\\-bind\\-to none colonnade train my.yaml\n"
        ".fi\n"
        ".PP\nEvery command knows \\fB\\-\\-help\\fR and \\fB\\-\\-version\\fR.\n"
        ".SH COMMANDS\n",
        commit_date(), COLONNADE_VERSION);
    for (const Command& command : commands())
        if (!command.hidden) page += command_part(command);
    page +=
        ".SH CONFIG KEYS\n"
        "A config is a YAML file of lines \\fIkey\\fR: \\fIvalue\\fR.\nDefaults are in brackets.\n" +
        key_parts() + ".SH EXIT STATUS\n" + facts(exit_codes) + ".SH ENVIRONMENT\n" + facts(variables);
    return page;
}

}  // namespace

Work man_command(CLI::App& app) {
    const auto output = std::make_shared<std::string>();
    app.add_option("--output,-o", *output, "write it to this file")->type_name("FILE");
    app.footer("To read it: colonnade man | man -l -");
    return [output] {
        if (output->empty())
            fmt::print("{}", manual());
        else
            write_file_atomically(*output, manual());
        return 0;
    };
}

}  // namespace colonnade
