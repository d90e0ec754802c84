#pragma once
// Help: the options of a command as text of 80 columns, and as entries for a man page and for completion.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace colonnade {

/// A term and its description: an option, an argument, a command.
struct HelpEntry {
    std::string term;  ///< "-p, --prompt TEXT", "MODEL"
    std::string text;  ///< ends in the default: "longest answer, in tokens [256]"
};

struct OptionHelp {
    HelpEntry entry;
    std::vector<std::string> names;    ///< "--prompt", "-p"; none for an argument
    std::string value;                 ///< kind of its value, as the help shows it: TEXT, MODEL; empty: a flag
    std::vector<std::string> choices;  ///< all values, if they are few
    bool required = false, several = false;
};

/// The options and arguments of a command, those of its groups included.
std::vector<OptionHelp> describe_options(const CLI::App& app);

constexpr size_t help_width = 80;
/// The text in lines of at most `width` columns, each after `indent` spaces. Line ends of the text stay, and what a line
/// is indented itself.
std::string wrapped(const std::string& text, size_t indent, size_t width = help_width);
/// Entries as a table of two columns.
std::string help_table(const std::vector<HelpEntry>& entries);

/// The page of --help. `forms`: the arguments in other forms than the options show, a line each; a line of two columns,
/// "CONFIG.yaml  config of the run", describes one.
class HelpFormatter : public CLI::FormatterBase {
  public:
    explicit HelpFormatter(std::string forms = "") : forms_(std::move(forms)) {}
    std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;

  private:
    std::string forms_;
};

/// The lines of `forms` that show a usage, and those that describe an argument.
std::vector<std::string> usage_forms(const std::string& forms, const CLI::App& app);
std::vector<HelpEntry> described_arguments(const std::string& forms);

}  // namespace colonnade
