// prepare: tokenises the data sets of a training config into its store and reports on them. `train` does the same when
// it starts; this program shows the data before training.

#include <unistd.h>

#include "data/prepare_report.h"
#include "data/store/unigram.h"
#include "engine/device/terminal.h"
#include "engine/program/command_line.h"
#include "train/run/run_arguments.h"
#include "train/run/session.h"

namespace colonnade {

Work prepare_command(CLI::App& app) {
    app.allow_extras();
    return [&app] {
        const auto say = [](const std::string& text, size_t indent) {
            fmt::print("{}", for_terminal(text, STDOUT_FILENO, indent));
        };
        const Session session =
            open_session(load_run(split_run_arguments(app.remaining())), one_rank(), SessionUse::plan);
        for (const std::string& notice : session.notices) say(fmt::format("note: {}\n", notice), 6);
        const auto show = [&](const char* name, const StoreResult& result, const PackSettings& packing) {
            const LearnedMark mark = has_colours(STDOUT_FILENO) ? LearnedMark::underline : LearnedMark::brackets;
            say(fmt::format("\n== {} ==\n{}", name,
                            prepare_report(result, packing, session.encoder->tokenizer().get(), mark)),
                4);
        };
        show("train", session.train, train_packing(session.config));
        if (session.eval.store.size() > 0) {
            show("eval", session.eval, eval_packing(session.config));
            if (session.config.model && session.config.rows() == RowKind::texts)
                fmt::print("unigram loss of the eval targets: {:.4f}\n",
                           unigram_loss(session.train.store, session.eval.store, session.model.vocab_size));
        }
        return 0;
    };
}

}  // namespace colonnade
