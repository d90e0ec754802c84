#include "engine/program/help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

namespace colonnade {
namespace {

/// The values that CLI::IsMember allows: "TEXT:{auto,cpu,cuda}".
std::vector<std::string> choices_of(const std::string& type) {
    const size_t begin = type.find('{'), end = type.find('}');
    std::vector<std::string> choices;
    if (begin == type.npos || end == type.npos) return choices;
    std::istringstream text(type.substr(begin + 1, end - begin - 1));
    for (std::string choice; std::getline(text, choice, ',');) choices.push_back(choice);
    return choices;
}

bool many(const CLI::Option& option) {
    return option.get_items_expected_max() > 1;
}

OptionHelp describe(const CLI::Option& option) {
    OptionHelp help;
    const std::string type = option.get_type_name();
    help.choices = choices_of(type);
    help.required = option.get_required();
    help.several = many(option);
    if (option.get_items_expected_max() > 0) help.value = type.substr(0, type.find(':'));
    if (help.value == "UINT") help.value = "INT";
    std::string& term = help.entry.term;
    if (option.get_positional() && !option.nonpositional()) {
        term = help.value;
        if (term == "TEXT") {  // no name of its own
            term = option.get_name(true);
            std::ranges::transform(term, term.begin(), [](unsigned char c) { return std::toupper(c); });
        }
    } else {
        for (const std::string& name : option.get_snames()) help.names.push_back('-' + name);
        for (const std::string& name : option.get_lnames()) help.names.push_back("--" + name);
        term = fmt::format("{}", fmt::join(help.names, ", "));
        if (!help.value.empty()) term += ' ' + help.value;
    }
    std::string& text = help.entry.text;
    text = option.get_description();
    if (!help.choices.empty())
        text += fmt::format("{}one of {}", text.empty() ? "" : "; ", fmt::join(help.choices, ", "));
    std::string value = option.get_default_str();
    if (value.starts_with('[') && value.ends_with(']')) value = value.substr(1, value.size() - 2);
    if (!value.empty()) text += fmt::format("{}[{}]", text.empty() ? "" : " ", value);
    return help;
}

void add_options(const CLI::App& app, std::vector<OptionHelp>& all) {
    for (const CLI::Option* option : app.get_options())
        if (!app.get_parent() || option != app.get_help_ptr()) all.push_back(describe(*option));
    for (const CLI::App* group : app.get_subcommands([](const CLI::App*) { return true; })) add_options(*group, all);
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

constexpr const char* between_columns = "  ";

}  // namespace

std::vector<OptionHelp> describe_options(const CLI::App& app) {
    std::vector<OptionHelp> all;
    add_options(app, all);
    return all;
}

std::string wrapped(const std::string& text, size_t own_indent, size_t columns) {
    std::string all;
    for (const std::string& line : lines_of(text)) {
        const size_t indent = own_indent + std::min(line.find_first_not_of(' '), line.size());
        std::istringstream words(line);
        std::string out(indent, ' ');
        size_t width = indent;
        for (std::string word; words >> word;) {
            if (width > indent && width + 1 + word.size() > columns) {
                out += '\n' + std::string(indent, ' ');
                width = indent;
            }
            if (width > indent) out += ' ', ++width;
            out += word, width += word.size();
        }
        all += (width > indent ? out : "") + '\n';
    }
    return all;
}

std::string help_table(const std::vector<HelpEntry>& entries) {
    constexpr size_t widest = 24;
    size_t column = 0;
    for (const HelpEntry& entry : entries)
        if (entry.term.size() <= widest) column = std::max(column, entry.term.size());
    const size_t indent = column + 4;
    std::string table;
    for (const HelpEntry& entry : entries) {
        std::string text = wrapped(entry.text, indent);
        const std::string term = "  " + entry.term;
        if (text.empty())
            text = term + '\n';
        else if (entry.term.size() > column)
            text = term + '\n' + text;
        else
            text.replace(0, term.size(), term);
        table += text;
    }
    return table;
}

std::vector<std::string> usage_forms(const std::string& forms, const CLI::App& app) {
    std::vector<std::string> usages;
    for (const std::string& line : lines_of(forms))
        if (line.find(between_columns) == line.npos) usages.push_back(line);
    if (!usages.empty()) return usages;
    std::string& usage = usages.emplace_back();
    for (const OptionHelp& option : describe_options(app)) {
        const bool argument = option.names.empty();
        if (!argument && !option.required) continue;
        std::string term = argument ? option.entry.term : option.names.back() + ' ' + option.value;
        if (option.several) term += "...";
        if (!option.required) term = '[' + term + ']';
        usage += (usage.empty() ? "" : " ") + term;
    }
    return usages;
}

std::vector<HelpEntry> described_arguments(const std::string& forms) {
    std::vector<HelpEntry> entries;
    for (const std::string& line : lines_of(forms)) {
        const size_t at = line.find(between_columns);
        if (at == line.npos) continue;
        entries.push_back({line.substr(0, at), line.substr(line.find_first_not_of(' ', at))});
    }
    return entries;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode) const {
    std::string page;
    for (const std::string& form : usage_forms(forms_, *app))
        page += fmt::format("{} {} [options]{}{}\n", page.empty() ? "Usage:" : "      ", name, form.empty() ? "" : " ",
                            form);
    if (!app->get_description().empty()) page += '\n' + wrapped(app->get_description() + '.', 0);
    std::vector<HelpEntry> arguments = described_arguments(forms_), options;
    for (const OptionHelp& option : describe_options(*app))
        (option.names.empty() ? arguments : options).push_back(option.entry);
    if (!arguments.empty()) page += "\nArguments:\n" + help_table(arguments);
    page += "\nOptions:\n" + help_table(options);
    if (!app->get_footer().empty()) page += '\n' + wrapped(app->get_footer(), 0);
    return page;
}

}  // namespace colonnade
