// inspect: a packed row of a run as a picture, with the text of its samples and what is suspicious about the data; or
// masks by name or from files.

#include <unistd.h>

#include "attention/bench/mask_options.h"
#include "engine/device/terminal.h"
#include "engine/io/replace_file.h"
#include "engine/program/command_line.h"
#include "train/inspect/inspect_mask.h"
#include "train/inspect/inspect_run.h"
#include "train/inspect/inspection_page.h"
#include "train/inspect/inspection_picture.h"
#include "train/inspect/inspection_text.h"
#include "train/run/run_arguments.h"

namespace colonnade {
namespace {

struct Options {
    MaskOptions masks{};
    InspectedChoice choice{};
    std::string html{}, png{};
};

Inspection inspect_masks(const MaskOptions& options) {
    Inspection all{.title = "Masks"};
    const auto add = [&](const std::vector<NamedMask>& masks) {
        for (const NamedMask& named : masks) all.masks.push_back(inspected_mask(named.name, named.mask));
    };
    add(masks_from_files(options));
    if (options.columns_files.empty())
        for (const int64_t length : options.lengths) add(masks_of_length(options, length, 1));
    if (all.masks.size() == 1) all.title = "Mask " + all.masks[0].name;
    return all;
}

/// `arguments`: of a run. Prints the notices of its session.
Inspection inspect_arguments(const CLI::App& app, const Options& options, std::vector<std::string> arguments) {
    if (app.count("--seed") > 0) arguments.push_back(fmt::format("seed={}", options.masks.seed));  // a key of configs
    const Session session = open_session(load_run(split_run_arguments(arguments)), one_rank(), SessionUse::plan);
    for (const std::string& notice : session.notices)
        fmt::print("{}", for_terminal(fmt::format("note: {}\n", notice), STDOUT_FILENO, 6));
    return inspect_run(session, options.choice);
}

int run(const CLI::App& app, const Options& options) {
    const bool masks = app.count("--mask") + app.count("--columns-file") > 0;
    const std::vector<std::string> arguments = app.remaining();
    if (masks && !arguments.empty())
        fail(Exit::config, "--mask and --columns-file show masks alone; '{}' is of a run: give one or the other",
             arguments[0]);
    const Inspection all = masks ? inspect_masks(options.masks) : inspect_arguments(app, options, arguments);
    const LearnedMark mark = has_colours(STDOUT_FILENO) ? LearnedMark::underline : LearnedMark::brackets;
    constexpr int64_t columns = 64;
    if (options.html.empty() && options.png.empty())
        fmt::print("{}", for_terminal(inspection_text(all, columns, mark), STDOUT_FILENO, 4));
    const auto write = [](const std::string& path, const std::string& content) {
        replace_file(path, content);
        fmt::print("{}\n", path);
    };
    if (!options.html.empty()) write(options.html, inspection_page(all));
    if (!options.png.empty()) write(options.png, png_of(picture_of(all)));
    return 0;
}

}  // namespace

Work inspect_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    app.allow_extras();
    app.add_flag("--eval", options->choice.eval, "show the evaluation data instead of the training data");
    auto* row = app.add_option("--row", options->choice.row, "number of the packed row, from 1; default: 1")
                    ->check(at_least(1));
    app.add_option("--sample", options->choice.sample, "show this row of the data: chats.jsonl:17")
        ->type_name("PLACE")
        ->excludes(row);
    app.add_option("--html", options->html, "write a page with the picture and every sample")->type_name("FILE");
    app.add_option("--png", options->png, "write the picture alone")->type_name("FILE");
    declare_masks(app, options->masks);
    return [options, &app] { return run(app, *options); };
}

}  // namespace colonnade
