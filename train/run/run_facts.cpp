#include "train/run/run_facts.h"

#include <fmt/ranges.h>

#include "data/packing/loader.h"
#include "data/prepare_report.h"
#include "train/run/learner_options.h"
#include "train/run/machine.h"

namespace colonnade {
namespace {

SplitFact split_fact(const char* name, const Config& c, const TokenStore& store) {
    const StoreStatistics& s = store.statistics;
    SplitFact split{.name = name,
                    .rows = s.rows,
                    .samples = s.samples,
                    .tokens = s.tokens,
                    .learned = s.learned_tokens,
                    .lengths = histogram(store.lengths())};
    for (const StoreStatistics::File& file : s.files)
        split.files.push_back({c.name_of(file.path), file.type, file.rows, file.samples});
    for (const RowNoteInfo& info : row_notes)
        if (const RowCount& rows = s.notes[info.note]; rows.count > 0)
            split.notes.push_back(
                {name_of(info.effect), info.label, rows.count, fmt::format("{}", fmt::join(rows.first, ", "))});
    return split;
}

/// The mask of the first row of the first batch, as the first layer sees it.
TilePicture first_mask(const Session& session, const PackSchedule& schedule) {
    Loader loader(session.train.store, schedule, {.prefetch = 1, .document_mask = session.config.document_mask});
    const std::optional<LoadedBatch> first = loader.next();
    if (!first || first->batch.length == 0) return {};
    const int64_t window = session.model.windows.empty() ? 0 : session.model.windows[0];
    const ColumnMask& whole = first->batch.mask;
    const ColumnMask mask = window > 0 ? whole.with_sliding_window(window, first->batch.positions) : whole;
    return tile_picture(mask);
}

}  // namespace

ReportFacts facts_of_run(const PlannedRun& run, const std::string& plan, double unigram_loss) {
    const auto& [session, schedule, saves, ranks] = run;
    const Config& c = session.config;
    LearnerOptions options = learner_options(c, ranks);
    options.density = density_of(session);
    const Arena arena = Learner::plan(session.model, options, session.device);
    ReportFacts facts{.model = model_text(session.model),
                      .device = device_text(session.device, c.device_index),
                      .given = {session.given.begin(), session.given.end()},
                      .plan = plan,
                      .splits = {split_fact("train", c, session.train.store)},
                      .sharing = sharing_text(session.train, schedule.settings().packing),
                      .packing_length = c.packing_length,
                      .peak = static_cast<int64_t>(arena.bytes()),
                      .unigram_loss = unigram_loss};
    if (session.eval.store.size() > 0) facts.splits.push_back(split_fact("eval", c, session.eval.store));
    const PackPlan& epoch = schedule.plan(0);
    facts.packed_rows = epoch.packs();
    facts.fill = epoch.fill;
    facts.mask = first_mask(session, schedule);
    const Arena host = Learner::host_plan(session.model, options, session.device);
    for (const Arena* memory : {&arena, &host})
        for (const auto& [what, bytes] : memory->groups()) facts.memory.emplace_back(what, static_cast<int64_t>(bytes));
    return facts;
}

}  // namespace colonnade
