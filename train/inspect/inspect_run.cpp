#include "train/inspect/inspect_run.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "data/packing/loader.h"
#include "data/prepare_report.h"
#include "engine/device/human_units.h"
#include "train/config/spellings.h"
#include "train/generation/answer_text.h"
#include "train/inspect/inspect_mask.h"
#include "train/run/describe_run.h"
#include "train/run/run_plan.h"

namespace colonnade {
namespace {

constexpr size_t places_shown = 50;          ///< of a note
constexpr size_t examples_of_note = 3;       ///< samples of a note that are shown with their text
constexpr int64_t longest_example = 20'000;  ///< tokens; --sample shows a longer one, in its row

/// A split of the data, with the settings of its rows.
struct ShownData {
    const Session& session;
    const StoreResult& stored;
    PackSettings packing;

    const TokenStore& store() const { return stored.store; }
    Sharing sharing() const { return stored.prefixes.order.empty() ? Sharing::sample : Sharing::row; }
    std::string place(int64_t i) const { return store().place(i); }
};

/// The labels of what was noted about a sample's row, the suspicious ones first.
std::vector<std::string> labels_of(RowNotes notes) {
    std::vector<std::string> labels;
    for (const bool suspicious : {true, false})
        for (const RowNoteInfo& info : row_notes)
            if (notes.has(info.note) && (info.effect == NoteEffect::suspicious) == suspicious)
                labels.emplace_back(info.label);
    return labels;
}

bool is_suspicious(RowNotes notes) {
    return std::ranges::any_of(row_notes, [&](const RowNoteInfo& info) {
        return info.effect == NoteEffect::suspicious && notes.has(info.note);
    });
}

/// `place` is the whole of `whole`, or its end from a '/' on, or a line alone.
bool names(const std::string& whole, const std::string& place) {
    if (!whole.ends_with(place)) return false;
    const size_t before = whole.size() - place.size();
    return before == 0 || whole[before - 1] == '/' || place.starts_with('/') || whole[before - 1] == ':';
}

/// The sample of a place.
int64_t find_sample(const ShownData& data, const std::string& place) {
    std::vector<int64_t> found;
    for (int64_t i = 0; i < data.store().size(); ++i)
        if (names(data.place(i), place) && (found.empty() || data.place(i) != data.place(found[0]))) found.push_back(i);
    if (found.size() == 1) return found[0];
    if (found.size() > 1)
        fail(Exit::config, "--sample {}: {} rows have this name, such as {} and {}", place, found.size(),
             data.place(found[0]), data.place(found[1]));
    for (const RowNoteInfo& info : row_notes)
        for (const std::string& dropped : data.store().statistics.notes[info.note].first)
            if (info.effect == NoteEffect::dropped && names(dropped, place))
                fail(Exit::config, "--sample {}: this row was dropped: {}. {}", place, info.label, info.meaning);
    fail(Exit::config, "--sample {}: no sample comes from a row of this name; expected one such as {}", place,
         data.place(0));
}

/// The number of the packed row to show, from 0.
int64_t find_row(const ShownData& data, const PackPlan& plan, const InspectedChoice& choice) {
    if (choice.row > plan.packs()) fail(Exit::config, "--row {}: there are {} packed rows", choice.row, plan.packs());
    if (choice.row > 0) return choice.row - 1;
    if (choice.sample.empty()) return 0;
    const int64_t sample = find_sample(data, choice.sample);
    const auto at = std::ranges::find(plan.samples, sample) - plan.samples.begin();
    return std::ranges::upper_bound(plan.begins, at) - plan.begins.begin() - 1;
}

InspectedSample inspected(const ShownData& data, int64_t number) {
    const Sample sample = data.store().sample(number);
    const Tokenizer* const tokenizer = data.session.encoder->tokenizer().get();
    InspectedSample shown{
        .place = data.place(number), .tokens = sample.length(), .notes = labels_of(data.store().notes(number))};
    for (size_t s = 0; s < sample.sequences.size(); ++s) {
        const Sequence& sequence = sample.sequences[s];
        InspectedSequence of{.name = sample.sequences.size() > 1 ? name_of_sequence(sample, s) : "",
                             .shared = sequence.shared,
                             .ids = sample.whole(s)};
        of.weights.assign(of.ids.size(), 0);
        for (const auto& [begin, end, weight] : sequence.learned)
            std::fill(of.weights.begin() + begin, of.weights.begin() + end, weight);
        if (tokenizer) {
            of.texts = token_texts(*tokenizer, of.ids);
            for (const int32_t id : of.ids) of.special.push_back(tokenizer->is_special(id));
        } else {
            for (const int32_t id : of.ids) of.texts.push_back(fmt::format("{} ", id));
            of.special.assign(of.ids.size(), 0);
        }
        shown.sequences.push_back(std::move(of));
    }
    return shown;
}

/// Fills in the packed row, its samples and its masks.
void show_row(Inspection& all, const ShownData& data, std::span<const int64_t> numbers) {
    std::vector<Sample> samples;
    std::vector<const Sample*> views;
    for (const int64_t i : numbers) samples.push_back(data.store().sample(i));
    for (const Sample& sample : samples) views.push_back(&sample);
    const bool documents = data.session.config.document_mask;
    const Sample joined = documents ? Sample() : one_long_text(samples);
    const Batch batch = make_batch({documents ? views : std::vector{&joined}}, {.sharing = data.sharing()});
    const std::vector<std::vector<int32_t>> rows = token_rows(views, data.sharing());

    InspectedRow& row = all.row;
    const auto length = static_cast<size_t>(batch.length);
    row.real_tokens = batch.real_tokens;
    row.ids = batch.tokens;
    row.positions = batch.positions;
    row.texts.resize(length);
    row.weights.resize(length);
    row.samples.assign(length, -1);
    row.sequences.assign(length, 0);
    row.users.assign(length, 0);
    size_t flat = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
        InspectedSample& shown = all.samples.emplace_back(inspected(data, numbers[i]));
        for (size_t s = 0; s < shown.sequences.size(); ++s, ++flat) {
            InspectedSequence& sequence = shown.sequences[s];
            sequence.rows = rows[flat];
            for (size_t t = 0; t < sequence.rows.size(); ++t) {
                const auto at = static_cast<size_t>(sequence.rows[t]);
                if (row.users[at]++ == 0) {
                    row.samples[at] = static_cast<int32_t>(i);
                    row.sequences[at] = static_cast<int32_t>(s);
                    row.texts[at] = sequence.texts[t];
                }
                row.weights[at] += static_cast<double>(sequence.weights[t]);
            }
        }
    }
    all.masks = masks_of_layers(data.session.model, batch.mask, batch.positions);
}

/// What was noted about the rows, the suspicious ones first; and some of their samples that are not part of
/// the packed row.
void show_notes(Inspection& all, const ShownData& data, std::span<const int64_t> shown) {
    const TokenStore& store = data.store();
    const std::vector<int64_t> lengths = store.lengths();
    std::vector<int64_t> examples;
    for (const NoteEffect effect : {NoteEffect::suspicious, NoteEffect::dropped, NoteEffect::changed})
        for (const RowNoteInfo& info : row_notes) {
            const RowCount& counted = store.statistics.notes[info.note];
            if (info.effect != effect || counted.count == 0) continue;
            InspectedNote& note =
                all.notes.emplace_back(InspectedNote{name_of(effect), info.label, info.meaning, counted.count, {}});
            if (effect == NoteEffect::dropped) {  // no sample is left of these rows
                note.places = counted.first;
                continue;
            }
            size_t added = 0;
            for (int64_t i = 0; i < store.size() && note.places.size() < places_shown; ++i) {
                if (!store.notes(i).has(info.note)) continue;
                note.places.push_back(store.place(i));
                const bool known =
                    std::ranges::find(shown, i) != shown.end() || std::ranges::find(examples, i) != examples.end();
                if (known || added == examples_of_note || lengths[static_cast<size_t>(i)] > longest_example) continue;
                examples.push_back(i);
                ++added;
            }
        }
    if (const auto& markers = store.statistics.markers_spelled_out; !markers.empty())
        all.notes.insert(all.notes.begin(),
                         {name_of(NoteEffect::suspicious),
                          "markers without a piece",
                          fmt::format("The chat template writes {}, which the tokenizer takes for ordinary text: the "
                                      "template is not that of this model.",
                                      fmt::join(markers, " ")),
                          store.statistics.rows,
                          {}});
    for (const int64_t i : examples) all.samples.push_back(inspected(data, i));
}

std::vector<std::pair<std::string, std::string>> facts_of(const ShownData& data, const InspectedRow& row) {
    const Session& session = data.session;
    const StoreStatistics& s = data.store().statistics;
    const Tokenizer* const tokenizer = session.encoder->tokenizer().get();
    const auto count = [](int64_t number) { return human_count(static_cast<double>(number)); };
    int64_t suspicious = 0;
    for (int64_t i = 0; i < data.store().size(); ++i) suspicious += is_suspicious(data.store().notes(i));
    return {{"model", model_text(session.model)},
            {"stage", spell(session.config.stage)},
            {"tokenizer", tokenizer ? session.config.name_of(tokenizer->path()) : "none: the rows have token ids"},
            {"data", fmt::format("{} samples from {} rows, {} tokens, {} of them learned ({:.1f} %)", count(s.samples),
                                 count(s.rows), count(s.tokens), count(s.learned_tokens),
                                 100 * static_cast<double>(s.learned_tokens) / static_cast<double>(s.tokens))},
            {"suspicious samples", fmt::format("{}", suspicious)},
            {"packed row", fmt::format("{} of {}: {} tokens of at most {}", row.number, row.of, row.real_tokens,
                                       data.packing.packing_length)}};
}

/// The sample that was asked for, else the first that is suspicious, else the first; an index.
size_t sample_to_show(const Inspection& all, const std::string& asked) {
    const auto find = [&](auto&& wanted) {
        return static_cast<size_t>(std::ranges::find_if(all.samples, wanted) - all.samples.begin());
    };
    size_t found = all.samples.size();
    if (!asked.empty()) found = find([&](const InspectedSample& sample) { return names(sample.place, asked); });
    if (found == all.samples.size()) found = find([](const InspectedSample& sample) { return !sample.notes.empty(); });
    return found == all.samples.size() ? 0 : found;
}

}  // namespace

std::vector<std::string> token_texts(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
    AnswerText text(tokenizer, {}, SpecialTokens::keep);
    std::vector<std::string> texts;
    texts.reserve(ids.size());
    for (const int32_t id : ids) texts.push_back(text.add(id));
    if (!texts.empty()) texts.back() += text.finish();
    return texts;
}

Inspection inspect_run(const Session& session, const InspectedChoice& choice) {
    if (choice.eval && session.eval.store.size() == 0)
        fail(Exit::config, "--eval: the run has no evaluation data; set eval_datasets or val_size");
    const ShownData data{session, choice.eval ? session.eval : session.train,
                         choice.eval ? eval_packing(session.config) : train_packing(session.config)};
    const PackPlan plan = Packer(data.stored.row_lengths(), data.packing, data.stored.prefixes).plan(0);
    Inspection all;
    const int64_t number = find_row(data, plan, choice);
    all.row.number = number + 1;
    all.row.of = plan.packs();
    const std::span<const int64_t> numbers = plan.pack(number);
    show_row(all, data, numbers);
    show_notes(all, data, numbers);
    all.shown = sample_to_show(all, choice.sample);
    all.title = fmt::format("{} of {}, row {} of {}", choice.eval ? "Evaluation data" : "Training data",
                            name_of_run(session.config), all.row.number, all.row.of);
    all.facts = facts_of(data, all.row);
    all.lengths = histogram(data.store().lengths());
    const LengthTable& l = data.store().statistics.lengths;
    all.length_table = {{"min", "p5", "p25", "p50", "p75", "p95", "p99", "max"}, {}};
    for (const int64_t tokens : {l.min, l.p5, l.p25, l.p50, l.p75, l.p95, l.p99, l.max})
        all.length_table[1].push_back(fmt::format("{}", tokens));
    for (const auto& [way, share] : fill_table(data.stored, data.packing)) all.fill_table.push_back({way, share});
    return all;
}

}  // namespace colonnade
