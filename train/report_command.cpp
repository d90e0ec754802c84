// report: makes the report.html of a run again, from the files in its folder.

#include "engine/io/replace_file.h"
#include "engine/program/command_line.h"
#include "train/report/metric_charts.h"
#include "train/run/run_report.h"

namespace colonnade {

Work report_command(CLI::App& app) {
    struct Options {
        std::string run, curves;
    };
    const auto options = std::make_shared<Options>();
    app.add_option("run", options->run, "folder of a run, which may still train")->required()->type_name("RUN");
    app.add_option("--curves", options->curves, "also write the loss curves to this file, as an SVG picture")
        ->type_name("FILE");
    return [options] {
        RunReport report(options->run);
        fmt::print("{}\n", report.write());
        if (options->curves.empty()) return 0;
        const ReportData data = report.read();
        replace_file(options->curves, svg_file(loss_chart(data)));
        fmt::print("{}\n", options->curves);
        return 0;
    };
}

}  // namespace colonnade
