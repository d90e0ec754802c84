// compare: lays runs side by side: states, keys that differ, last values; and curves as a page.

#include <unistd.h>

#include <set>

#include "engine/device/terminal.h"
#include "engine/io/replace_file.h"
#include "engine/program/command_line.h"
#include "train/report/comparison.h"
#include "train/run/run_report.h"

namespace colonnade {
namespace {

constexpr size_t most_runs = 32;

}  // namespace

Work compare_command(CLI::App& app) {
    struct Options {
        std::vector<std::string> runs;
        std::string output = "compare.html";
    };
    const auto options = std::make_shared<Options>();
    app.add_option("runs", options->runs, "folders of runs")->required()->type_name("RUN...");
    app.add_option("-o,--output", options->output, "page to write, with the curves")->type_name("FILE");
    return [options] {
        const std::vector<std::string>& folders = options->runs;
        if (folders.size() < 2 || folders.size() > most_runs)
            fail(Exit::config, "compare takes 2 to {} runs, found {}", most_runs, folders.size());
        if (std::set<std::string>(folders.begin(), folders.end()).size() < folders.size())
            fail(Exit::config, "compare: a run is given twice");
        std::vector<ReportData> runs;
        for (const std::string& folder : folders) runs.push_back(RunReport(folder).read());
        const size_t columns = is_terminal(STDOUT_FILENO) ? terminal_columns(STDOUT_FILENO) : 0;
        fmt::print("{}\n", comparison_text(comparison_of(runs), columns));
        replace_file(options->output, comparison_page(std::move(runs)));
        fmt::print("{}\n", options->output);
        return 0;
    };
}

}  // namespace colonnade
