// teach: writes what a model says as a teacher about the tokens of data, for stage distill.

#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "layers/largest_logits.h"
#include "train/config/spellings.h"
#include "train/run/run_arguments.h"
#include "train/run/teach.h"

namespace colonnade {

Work teach_command(CLI::App& app) {
    const auto options = std::make_shared<TeachOptions>();
    app.add_option("--output", options->output, "the HDF5 file to write; replaced if it exists")->required();
    app.add_option("--top-k", options->top, "tokens of each list")
        ->capture_default_str()
        ->check(CLI::Range(int64_t{1}, LargestLogits::max_k));
    app.add_option("--temperature", options->temperature, "logits are divided by it")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.allow_extras();
    app.footer(
        "The model is the teacher. Its pass over the training data writes rows of token ids with the most probable "
        "tokens "
        "in "
        "the place of each learned one, for stage distill of a model with the same tokenizer.");
    return [options, &app] {
        Session session = open_session(load_run(split_run_arguments(app.remaining())));
        for (const std::string& notice : session.notices) fmt::print("note: {}\n", notice);
        if (session.config.rows() != RowKind::texts)
            fail(Exit::config, "stage {}: a teacher reads texts; set stage: sft or pt", spell(session.config.stage));
        const Taught taught = teach(std::move(session), *options);
        fmt::print(
            "{}: {} rows, {} tokens, {} lists of the {} most probable tokens, which have {:.2f} % of the probability; "
            "{}\n",
            options->output, taught.rows, taught.tokens, taught.lists, options->top, 100 * taught.probability,
            human_duration(taught.seconds));
        return 0;
    };
}

}  // namespace colonnade
