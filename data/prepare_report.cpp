#include "data/prepare_report.h"

#include <algorithm>
#include <span>

#include "data/text/unicode.h"
#include "engine/device/arena.h"
#include "engine/device/human_units.h"
#include "engine/device/terminal.h"

namespace colonnade {
namespace {

constexpr size_t padded_batch = 8;  // rows of the padded batch that packing is compared with

double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

std::string line(const std::string& name, const std::string& value) {
    return fmt::format("  {:<26}{}{}\n", name, name.size() < 26 ? "" : " ", value);
}

/// Empty if no row has this note.
std::string line(const RowNoteInfo& info, const RowCount& rows) {
    if (rows.count == 0) return "";
    const char* effect = info.effect == NoteEffect::dropped      ? "dropped, "
                         : info.effect == NoteEffect::suspicious ? "suspicious, "
                                                                 : "";
    const auto more = rows.count > static_cast<int64_t>(rows.first.size()) ? ", ..." : "";
    return line(fmt::format("{}{}", effect, info.label),
                fmt::format("{} ({}{})", rows.count, fmt::join(rows.first, ", "), more));
}

/// At most 10 of the names.
std::string some_of(const std::vector<std::string>& names) {
    constexpr size_t shown = 10;
    if (names.size() <= shown) return fmt::format("{}", fmt::join(names, ", "));
    return fmt::format("{}, ... ({} in all)", fmt::join(names.begin(), names.begin() + shown, ", "), names.size());
}

/// The files of one data set, each on a line; many of them on one.
std::string file_lines(std::span<const StoreStatistics::File> files) {
    constexpr size_t most_lines = 10;
    const auto file_line = [](const StoreStatistics::File& file, const std::string& name) {
        return line(file.type,
                    fmt::format("{}: {} {} {} rows{}", name, file.samples, file.samples > file.rows ? "from" : "of",
                                file.rows, file.columns.empty() ? "" : "; read as " + file.columns));
    };
    std::string text;
    StoreStatistics::File all = files.front();
    all.rows = all.samples = 0;
    for (const StoreStatistics::File& file : files) {
        text += file_line(file, file.path);
        all.rows += file.rows;
        all.samples += file.samples;
    }
    if (files.size() <= most_lines) return text;
    return file_line(all, fmt::format("{} files, {} to {}", files.size(), files.front().path, files.back().path));
}

/// Empty if no row has answers with scores.
std::string kept_line(const StoreStatistics& s) {
    if (s.scored_rows == 0) return "";
    const int64_t without = s.notes[RowNote::dropped_no_answer_kept].count;
    return line("kept by score", fmt::format("{} of {} answers, of {} of {} rows", s.kept_answers, s.scored_answers,
                                             s.scored_rows - without, s.scored_rows));
}

/// Empty if no chat is learned turn by turn.
std::string turn_lines(const TokenStore& store) {
    if (store.statistics.notes[RowNote::per_turn].count == 0) return "";
    int64_t chats = 0, turns = 0, tokens = 0, repeated = 0;
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        if (sample.sequences.size() < 2 || !sample.pairs.empty()) continue;
        ++chats;
        turns += std::ssize(sample.sequences);
        tokens += sample.length();
        for (const Sequence& sequence : sample.sequences) repeated += sequence.length();
    }
    return line(
        "turn by turn",
        fmt::format("{} turns of {} chats: {} tokens; {} with what stands before each, {:.1f}% more", turns, chats,
                    tokens, repeated, percent(static_cast<double>(repeated), static_cast<double>(tokens)) - 100));
}

std::string counts(const StoreResult& result) {
    const StoreStatistics& s = result.store.statistics;
    std::string text;
    for (size_t begin = 0, end; begin < s.files.size(); begin = end) {
        for (end = begin; end < s.files.size() && s.files[end].dataset == s.files[begin].dataset;) ++end;
        text += file_lines(std::span(s.files).subspan(begin, end - begin));
    }
    text += line("samples", fmt::format("{} {} {} rows", s.samples, s.samples > s.rows ? "from" : "of", s.rows));
    text += kept_line(s) + row_report(s);
    text += line("tokens", fmt::format("{} ({} in memory)", s.tokens, human_bytes(result.store.bytes())));
    const auto learned = static_cast<double>(s.learned_tokens);
    text += line(
        "trained on",
        fmt::format("{} ({:.1f}% of the tokens){}", s.learned_tokens, percent(learned, static_cast<double>(s.tokens)),
                    s.learned_weight != learned
                        ? fmt::format(", with weights of {:.4g} on average", s.learned_weight / learned)
                        : ""));
    text += turn_lines(result.store);
    return text;
}

/// Empty if no sample has answers to compare.
std::string pair_lines(const TokenStore& store) {
    const StoreStatistics& s = store.statistics;
    if (s.pairs == 0) return "";
    const auto pairs = static_cast<double>(s.pairs), repeated = static_cast<double>(s.repeated_tokens);
    bool several_turns = false;
    int64_t best = 0, worst = 0;  // trained tokens
    PairTotals totals;
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        if (sample.pairs.empty()) continue;
        const auto of = [&](int32_t sequence) {
            return learned_tokens(sample.sequences[static_cast<size_t>(sequence)]);
        };
        best += of(sample.pairs.front().better);
        worst += of(sample.pairs.back().worse);
        several_turns |= sample.pairs.size() > 1 && chosen_come_last(sample);
        const PairTotals own = pair_totals(sample.pairs);
        totals.pairs += own.pairs;
        totals.weight += own.weight;
    }
    const bool rankings = s.answers > 2 * s.pairs && !several_turns;
    const auto mean = [&](int64_t sum) { return static_cast<double>(sum) / pairs; };
    const std::string weights =
        totals.weight == totals.pairs ? "" : fmt::format(", with weights of {:.4g} on average", totals.mean());
    return line(rankings ? "rankings" : "pairs",
                (rankings ? fmt::format("{} with {:.1f} answers each", s.pairs, static_cast<double>(s.answers) / pairs)
                 : several_turns ? fmt::format("{:.0f}, turns of {} conversations", totals.pairs, s.pairs)
                                 : fmt::format("{}", s.pairs)) +
                    weights) +
           line(rankings        ? "tokens of a ranking"
                : several_turns ? "tokens of a conversation"
                                : "tokens of a pair",
                fmt::format("{:.1f}; {:.1f} with the prompt repeated, {:.1f}% more", mean(s.pair_tokens),
                            mean(s.repeated_tokens), percent(repeated, static_cast<double>(s.pair_tokens)) - 100)) +
           line("trained per answer", fmt::format("{} {:.1f} tokens, {} {:.1f}", rankings ? "best" : "chosen",
                                                  mean(best), rankings ? "worst" : "rejected", mean(worst)));
}

/// Empty if no answer has a score.
std::string reward_lines(const StoreStatistics& s) {
    std::string text;
    for (size_t set = 0; set < s.rewards.size(); ++set) {
        const RewardCounts& r = s.rewards[set];
        const std::string of = s.rewards.size() > 1 ? fmt::format(" of data set {}", set + 1) : "";
        text += line("answers" + of, fmt::format("{} in {} groups", r.answers, r.groups));
        if (r.given > 0) text += line("advantages" + of, fmt::format("{} as the rows give them", r.given));
        if (r.groups_of_one + r.groups_of_equal > 0)
            text += line("groups without advantage" + of,
                         fmt::format("{} with one reward, {} with equal rewards", r.groups_of_one, r.groups_of_equal));
        if (r.unscored > 0) text += line("not scored" + of, fmt::format("{}: their advantage is 0", r.unscored));
        if (r.reward != 0 || r.reward_std != 0)
            text += line("rewards" + of, fmt::format("mean {:.4g}, std {:.4g}", r.reward, r.reward_std));
    }
    return text;
}

/// Empty without a teacher.
std::string teacher_lines(const StoreStatistics& s) {
    const TeacherCounts& t = s.teacher;
    if (t.tokens == 0) return "";
    const auto tokens = static_cast<double>(t.tokens);
    return line("teacher",
                fmt::format("lists of {:.1f} tokens, at most {}, which have {:.2f} % of its probability",
                            static_cast<double>(t.entries) / tokens, t.longest, 100 * t.probability / tokens)) +
           line("", fmt::format("{:.2f} % of the lists hold the token of the text; {} in the file beside the store",
                                100 * static_cast<double>(t.holding) / tokens,
                                human_bytes(static_cast<size_t>(t.words) * sizeof(uint32_t))));
}

/// Empty if no answer is labelled.
std::string label_lines(const TokenStore& store) {
    if (!store.statistics.rewards.empty()) return "";
    int64_t good = 0, bad = 0;
    for (int64_t i = 0; i < store.size(); ++i)
        for (const Sequence& sequence : store.sample(i).sequences) {
            good += sequence.advantage > 0;
            bad += sequence.advantage < 0;
        }
    return good + bad == 0 ? "" : line("labels", fmt::format("{} good answers, {} bad ones", good, bad));
}

std::string length_lines(const StoreStatistics& s) {
    const LengthTable& l = s.lengths;
    return fmt::format("  {:<16}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}\n", "length", "min", "p5", "p25", "p50", "p75",
                       "p95", "p99", "max") +
           fmt::format("  {:<16}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}\n", "tokens", l.min, l.p5, l.p25, l.p50, l.p75,
                       l.p95, l.p99, l.max);
}

/// Percentage of real tokens if rows in shuffled order are padded to the longest row of each batch.
double padded_fill(std::span<const int64_t> lengths, PackSettings packing) {
    packing.strategy = PackStrategy::none;
    const PackPlan plan = plan_epoch(lengths, packing, 0);
    int64_t tokens = 0, padded = 0;
    for (size_t begin = 0; begin < plan.samples.size(); begin += padded_batch) {
        const size_t end = std::min(begin + padded_batch, plan.samples.size());
        int64_t longest = 0;
        for (size_t i = begin; i < end; ++i) {
            const int64_t length = lengths[static_cast<size_t>(plan.samples[i])];
            tokens += length;
            longest = std::max(longest, length);
        }
        padded += longest * static_cast<int64_t>(end - begin);
    }
    return percent(static_cast<double>(tokens), static_cast<double>(padded));
}

}  // namespace

std::string row_report(const StoreStatistics& s, const std::string& indent) {
    std::string text;
    const auto add = [&](const std::string& line) {
        if (!line.empty()) text += indent + line.substr(2);
    };
    if (!s.left_out.empty()) add(line("files left out", some_of(s.left_out)));
    for (const RowNoteInfo& info : row_notes) add(line(info, s.notes[info.note]));
    std::vector<std::string> unused;
    for (const auto& [name, rows] : s.unused_columns.rows())
        unused.push_back(fmt::format("{} ({} row{})", name, rows, rows == 1 ? "" : "s"));
    if (!unused.empty()) add(line("columns not used", fmt::format("{}", fmt::join(unused, ", "))));
    if (!s.markers_spelled_out.empty())
        add(line("markers without a piece",
                 fmt::format("{}: tokenised as ordinary text", fmt::join(s.markers_spelled_out, " "))));
    return text;
}

std::vector<std::string> sharing_text(const StoreResult& split, const PackSettings& packing) {
    if (split.prefixes.order.empty()) return {};
    const PackPlan plan = Packer(split.row_lengths(), packing, split.prefixes).plan(0);
    const PrefixSharing sharing = split.store.prefix_sharing(split.prefixes);
    const auto tokens = [](int64_t count) { return human_count(static_cast<double>(count)); };
    std::vector<std::string> lines = {fmt::format(
        "{} of {} tokens are computed, {:.1f} times fewer; at best {}", tokens(plan.computed), tokens(plan.represented),
        static_cast<double>(plan.represented) / static_cast<double>(plan.computed),
        tokens(plan.represented - sharing.before + sharing.after))};
    const std::string short_beginnings = fmt::format("beginnings of less than {} tokens", packing.min_shared);
    const std::pair<std::string, int64_t> sources[] = {{"common beginnings", sharing.stems},
                                                       {"whole earlier samples that go on", sharing.continuations},
                                                       {"duplicates", sharing.duplicates},
                                                       {short_beginnings, sharing.chance}};
    for (const auto& [name, saved] : sources)
        if (saved > 0) lines.push_back(fmt::format("{}: up to {} tokens", name, tokens(saved)));
    const double worth_naming = 0.01 * static_cast<double>(sharing.before - sharing.after);
    for (const SharedStem& stem : sharing.largest)
        if (stem.depth >= packing.min_shared && static_cast<double>(stem.saved()) >= worth_naming)
            lines.push_back(fmt::format("{} samples begin with the same {} tokens, as does {}", stem.sequences,
                                        stem.depth,
                                        split.store.place(split.prefixes.order[static_cast<size_t>(stem.first)])));
    return lines;
}

std::vector<std::pair<std::string, std::string>> fill_table(const StoreResult& result, const PackSettings& packing) {
    const TokenStore& store = result.store;
    const PackPlan plan = Packer(result.row_lengths(), packing, result.prefixes).plan(0);
    const auto tokens = static_cast<double>(store.tokens()), samples = static_cast<double>(store.size());
    const auto share = [](double fill) {
        return fmt::format("{:.1f}% real tokens, {:.1f}% padding", fill, 100 - fill);
    };
    return {
        {"packs", fmt::format("{} x {} tokens, {:.1f} samples each", plan.packs(), packing.packing_length,
                              samples / static_cast<double>(plan.packs()))},
        {"packed", share(100 * plan.fill)},
        {fmt::format("padded, batches of {}", padded_batch), share(padded_fill(store.lengths(), packing))},
        {"padded to the full length", share(percent(tokens, samples * static_cast<double>(packing.packing_length)))}};
}

std::string prepare_report(const StoreResult& result, const PackSettings& packing, const Tokenizer* tokenizer,
                           LearnedMark mark) {
    const TokenStore& store = result.store;
    const std::string made = result.reused ? "reused: data and settings are unchanged"
                             : result.seconds > 0
                                 ? fmt::format("tokenised in {}, {} tokens/s", human_duration(result.seconds),
                                               human_count(result.tokens_per_second))
                                 : "split from the training data";
    const Sample first = store.sample(0);
    std::string fill, prefixes;
    for (const auto& [way, share] : fill_table(result, packing)) fill += line(way, share);
    for (const std::string& text : sharing_text(result, packing))
        prefixes += line(prefixes.empty() ? "prefixes" : "", text);
    return line("store", result.path.empty() ? made : fmt::format("{}, {}", result.path, made)) + counts(result) +
           pair_lines(store) + reward_lines(store.statistics) + label_lines(store) + teacher_lines(store.statistics) +
           length_lines(store.statistics) + fill + prefixes +
           fmt::format(
               "  first sample ({}, {} tokens); spaces separate tokens, what is learned is {}:\n"
               "    {}\n",
               store.place(0), first.length(), text_of(mark), render_sample(first, tokenizer, mark));
}

}  // namespace colonnade
