#include "train/run/run_plan.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <cmath>
#include <numeric>
#include <utility>

#include "data/prepare_report.h"
#include "engine/device/device.h"
#include "engine/device/human_units.h"
#include "engine/device/terminal.h"
#include "train/config/spellings.h"
#include "train/run/given_logps.h"
#include "train/run/learner_options.h"
#include "train/run/machine.h"
#include "train/run/run_schedule.h"
#include "train/run/sample_answers.h"
#include "train/run/session_fit.h"

namespace colonnade {
namespace {

struct RunTotals {
    StepTotals samples;
    int64_t packs = 0;
    int64_t counted_epochs = 0;  ///< > 0: the rest is extrapolated from this many
};

void add(RunTotals& total, const StepTotals& samples, int64_t packs) {
    total.samples.tokens += samples.tokens;
    total.samples.computed += samples.computed;
    total.samples.samples += samples.samples;
    total.samples.weight += samples.weight;
    total.samples.pairs += samples.pairs;
    total.packs += packs;
}

/// Epoch by epoch, step by step in an epoch that the run does not complete.
RunTotals totals_of_run(const TokenStore& store, PackSchedule& schedule) {
    const std::vector<int64_t> lengths = store.lengths();
    const std::vector<double> weights = store.target_weights();
    const std::vector<PairTotals> pairs = store.pairs();
    const StepLayout& layout = schedule.settings().layout;
    StepTotals epoch{.weight = std::accumulate(weights.begin(), weights.end(), 0.0),
                     .pairs = std::accumulate(pairs.begin(), pairs.end(), 0.0,
                                              [](double sum, const PairTotals& of) { return sum + of.pairs; }),
                     .samples = store.size(),
                     .tokens = store.tokens()};
    RunTotals total;
    int64_t left = schedule.total_steps();
    for (int64_t e = 0; left > 0 && e < schedule.counted_epochs(); ++e) {
        const PackPlan& plan = schedule.plan(e);
        const int64_t steps = layout.steps(plan);
        if (left >= steps) {
            epoch.computed = plan.computed;
            add(total, epoch, plan.packs());
        } else {
            for (int64_t step = 0; step < left; ++step)
                add(total, step_totals(plan, layout, step, lengths, weights, pairs),
                    std::min(layout.packs_per_step(), plan.packs() - step * layout.packs_per_step()));
        }
        left -= std::min(left, steps);
    }
    if (left == 0) return total;
    const auto steps = static_cast<double>(schedule.total_steps());
    const double factor = steps / (steps - static_cast<double>(left));
    const auto scaled = [&](int64_t count) { return std::llround(static_cast<double>(count) * factor); };
    const StepTotals& t = total.samples;
    return {.samples = {.weight = t.weight * factor,
                        .pairs = t.pairs * factor,
                        .samples = scaled(t.samples),
                        .tokens = scaled(t.tokens),
                        .computed = scaled(t.computed)},
            .packs = scaled(total.packs),
            .counted_epochs = schedule.counted_epochs()};
}

std::string line(const char* what, const std::string& value) {
    return fmt::format("{:<10} {}\n", what, value);
}

std::string model_lines(const Config& c, const ModelConfig& m) {
    std::string text = line("model", model_text(m));
    if (const auto lora = lora_settings(c))
        text +=
            line("lora",
                 fmt::format("rank {}, scale {}, on {}: trains {} parameters, the model stays frozen{}", lora->rank,
                             lora->scale(), fmt::join(lora->targets, ", "),
                             human_count(static_cast<double>(lora_parameters(m, *lora).count())),
                             base_code(c) ? fmt::format(", its linear layers in {}", spell(c.base_quantization)) : ""));
    if (const auto freeze = freeze_settings(c)) {
        const SplitParameters split = split_parameters(m, *freeze);
        text += line("frozen", fmt::format("{} of {} parameters; trained are {}",
                                           human_count(static_cast<double>(split.frozen.count())),
                                           human_count(static_cast<double>(ParameterList(m).count())),
                                           human_count(static_cast<double>(split.trained.count()))));
    }
    return text;
}

std::string row_lines(const char* split, const TokenStore& store) {
    const StoreStatistics& s = store.statistics;
    const std::string report = row_report(s, fmt::format("{:<10} ", split));
    if (report.empty()) return {};
    return line("rows", fmt::format("{}: {} samples {} {} rows", split, s.samples, s.samples > s.rows ? "from" : "of",
                                    s.rows)) +
           report;
}

std::string sample_lines(const Session& session, const PlanView& view) {
    const TokenStore& store = session.train.store;
    const Tokenizer* tokenizer = session.encoder->tokenizer().get();
    if (!tokenizer || store.size() == 0) return {};
    const LearnedMark mark = view.colours ? LearnedMark::underline : LearnedMark::brackets;
    std::string text = sample_text(store.sample(0), *tokenizer, mark);
    for (size_t at = 0; (at = text.find('\n', at)) != text.npos; at += 12)
        text.replace(at, 1, "\n" + std::string(11, ' '));
    return line("sample", fmt::format("{}, what is learned {}:\n{:11}{}", store.place(0), text_of(mark), "", text));
}

/// What divides the loss of stage grpo, and its ratio.
std::string policy_lines(const Config& c) {
    const PolicyLoss loss = *c.policy_loss;
    const std::string divisor = is_mean_of_terms(loss)      ? "the learned tokens of a step"
                                : loss == PolicyLoss::luspo ? "the answers of a step"
                                : loss == PolicyLoss::dr_grpo
                                    ? fmt::format("the answers of a step times {}", c.max_completion_length)
                                    : "the learned tokens of each answer, then its answers";
    return line("loss",
                fmt::format("{}: divided by {}; ratio of importance_sampling_level {}, old_logps {}, beta {}",
                            spell(loss), divisor, spell(c.importance_sampling_level), spell(c.old_logps), c.beta));
}

/// What is learned in stage distill.
std::string distillation_line(const Config& c, const TeacherCounts& teacher) {
    const std::string of = c.beta == 0   ? "forward KL"
                           : c.beta == 1 ? "reverse KL"
                                         : fmt::format("Jensen-Shannon divergence of beta {}", c.beta);
    return line("loss", fmt::format("{} x {} from the teacher, {} tokens a list at most{}; temperature {}", c.kd_alpha,
                                    of, teacher.longest,
                                    c.kd_ce_alpha > 0 ? fmt::format(", and {} x cross-entropy", c.kd_ce_alpha) : "",
                                    c.temperature));
}

/// A warm-up begins at 0, so a run of one step may learn nothing.
std::string warmup_line(const Config& c, int64_t steps) {
    const LrSchedule rates = lr_schedule(c, steps);
    if (steps != 1 || learning_rate(rates, 0) > 0) return {};
    return line("learning", fmt::format("NOTHING: the learning rate of the only step is 0 (warm-up of {} step); train "
                                        "longer, or set warmup_ratio: 0",
                                        rates.warmup_steps));
}

}  // namespace

std::string model_text(const ModelConfig& m) {
    return fmt::format("{}, {} layers of {}, {} heads ({} kv) of {}, vocabulary {}: {} parameters",
                       name_of(m.architecture), m.num_hidden_layers, m.hidden_size, m.num_attention_heads,
                       m.num_key_value_heads, m.head_dim, m.vocab_size,
                       human_count(static_cast<double>(ParameterList(m).count())));
}

/// The label of every line dim.
static std::string with_dim_labels(const std::string& text) {
    constexpr size_t width = 10;
    std::string all;
    for (size_t begin = 0, end; begin < text.size(); begin = end) {
        end = std::min(text.find('\n', begin), text.size() - 1) + 1;
        const std::string_view line = std::string_view(text).substr(begin, end - begin);
        const bool label = line.size() > width && line[0] != ' ' && line[width] == ' ' && !line.starts_with("note:");
        all += label ? styled(line.substr(0, width), Style::dim).append(line.substr(width)) : with_coloured_mark(line);
    }
    return all;
}

PlanView PlanView::of_stdout(PlanLength length) {
    const bool terminal = is_terminal(STDOUT_FILENO);
    return {.length = length,
            .colours = has_colours(STDOUT_FILENO),
            .columns = terminal ? terminal_columns(STDOUT_FILENO) - 1 : 0};
}

std::string PlanView::fitting(const std::string& text, size_t indent) const {
    return columns > 0 ? wrapped(text, columns, indent) : text;
}

static std::string memory_lines(const PlannedRun& run, const PlanView& view) {
    const auto& [session, schedule, saves, ranks] = run;
    const std::string device = device_text(session.device, session.config.device_index);
    LearnerOptions options = learner_options(session.config, ranks);
    options.density = density_of(session);
    const Arena plan = Learner::plan(session.model, options, session.device),
                pinned = Learner::host_plan(session.model, options, session.device);
    const bool answers = session.config.eval_table_size > 0;
    const std::string of_answers = !answers ? ""
                                   : session.device == Device::cuda && !built_with_cuda()
                                       ? "not planned: this build has no CUDA"
                                       : human_bytes(SampleAnswers::planned_bytes(session));
    if (view.length == PlanLength::brief)
        return line(
            "memory",
            fmt::format("{}{} on the {}{}{}", human_bytes(plan.bytes()),
                        answers ? fmt::format(" (sample answers: {})", of_answers) : "", device,
                        pinned.bytes() > 0 ? fmt::format(", {} of the host's", human_bytes(pinned.bytes())) : "",
                        ranks.several() ? ", on each rank" : ""));
    std::string text = fmt::format("memory of {} {}\n{}", ranks.several() ? "each rank:" : "the", device, plan.table());
    if (answers)
        text += fmt::format("  {:<24} {:>12}  (beside the peak{})\n", "sample answers", of_answers,
                            ranks.several() ? ", on rank 0" : "");
    const auto host = [&](const char* what, size_t bytes) {
        text += fmt::format("  {:<24} {:>12}\n", what, human_bytes(bytes));
    };
    for (const auto& [what, bytes] : pinned.groups()) host(what.c_str(), bytes);
    host("token stores (host)", session.train.store.bytes() + session.eval.store.bytes());
    if (const auto tables = static_cast<size_t>(missing_logps(session).tables()); tables > 0) {
        const int64_t learned = session.train.store.learned_count() + session.eval.store.learned_count();
        host("log-probabilities (host)", tables * sizeof(float) * static_cast<size_t>(learned));
    }
    if (saves.background) host("copy for saves (host)", saves.copy_bytes);
    return text;
}

/// Of a GPU whose rates are known.
static std::string step_time_line(const PlannedRun& run, const StepTotals& all) {
    const Session& s = run.session;
    const PredictedGpu gpu = predicted_gpu(s.config);
    if (s.device == Device::cpu || !gpu.rates.known()) return {};
    const double steps = static_cast<double>(run.schedule.total_steps()), ranks = run.ranks.size();
    const StepAmounts amounts = amounts_of_token(s).times(static_cast<double>(all.computed) / steps / ranks);
    const StepTime time = predict_step(s.model, learner_options(s.config, run.ranks),
                                       s.config.gradient_accumulation_steps, amounts, gpu.rates);
    return line("step time",
                step_time_text(time, gpu) + (run.ranks.several() ? "; without the exchange of ranks" : ""));
}

std::string plan_text(const PlannedRun& run, const PlanView& view) {
    const auto& [session, schedule, saves, ranks] = run;
    const Config& c = session.config;
    const TokenStore &train = session.train.store, &eval = session.eval.store;
    const StepLayout& layout = schedule.settings().layout;
    const RunTotals total = totals_of_run(train, schedule);
    const StepTotals& t = total.samples;
    const auto steps = static_cast<double>(schedule.total_steps());
    const double fill =
        static_cast<double>(t.computed) / (static_cast<double>(total.packs) * static_cast<double>(c.packing_length));
    std::string notes;
    for (const std::string& notice : session.notices) notes += fmt::format("note: {}\n", notice);
    if (session.device == Device::cuda && !has_gpu(c.device_index))
        notes += fmt::format(
            "note: no GPU was seen here; this is the plan for one of compute capability {} whose memory holds the peak "
            "below, and about 1 GiB for CUDA and its libraries\n",
            c.compute == Compute::fp8 ? "9.0" : "8.0 or newer");
    std::string text = model_lines(c, session.model);
    text += line("data", fmt::format("train {} samples, {} tokens; eval {} samples, {} tokens", train.size(),
                                     train.tokens(), eval.size(), eval.tokens()));
    text += row_lines("train", train) + row_lines("eval", eval) + sample_lines(session, view);
    text += line("steps", fmt::format("{} step{} x {} pack{} ({} micro-step{} x {}{})", schedule.total_steps(),
                                      schedule.total_steps() == 1 ? "" : "s", layout.packs_per_step(),
                                      layout.packs_per_step() == 1 ? "" : "s", layout.accumulation,
                                      layout.accumulation == 1 ? "" : "s", layout.per_device_batch,
                                      ranks.several() ? fmt::format(" on each of {} ranks", layout.ranks) : ""));
    if (ranks.several()) text += line("ranks", waiting_text(schedule));
    text += warmup_line(c, schedule.total_steps());
    text +=
        line("run", fmt::format("{} samples, {} tokens ({:.0f} trained on{}) in {} packs of {}, {:.1f} % full",
                                t.samples, t.tokens, t.weight,
                                train.statistics.learned_weight != static_cast<double>(train.statistics.learned_tokens)
                                    ? ", by weight"
                                    : "",
                                total.packs, c.packing_length, 100 * fill));
    const char* label = "prefixes";
    for (const std::string& shared : sharing_text(session.train, schedule.settings().packing)) {
        text += line(std::exchange(label, ""), shared);
        if (view.length == PlanLength::brief) break;
    }
    if (total.counted_epochs > 0)
        text += line("", fmt::format("estimated: {} counted in the first {} epochs",
                                     schedule.extrapolated() ? "steps, samples, tokens and packs are"
                                                             : "samples, tokens and packs are",
                                     total.counted_epochs));
    if (c.rows() == RowKind::preferences)
        text += line("pairs", fmt::format("{:.0f}, {:.1f} per step on average", t.pairs, t.pairs / steps));
    if (c.stage == Stage::grpo) text += policy_lines(c);
    if (c.stage == Stage::distill) text += distillation_line(c, train.statistics.teacher);
    if (!session.train.mismatched.empty()) {
        const std::vector<int64_t> lengths = session.train.mismatched.lengths(train);
        text += line("kl", fmt::format("each step first runs forward over mismatched answers: {} tokens in a pass over "
                                       "the data, beside its {}",
                                       std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), train.tokens()));
    }
    if (view.length == PlanLength::complete)
        text += line("per step", fmt::format("{:.1f} samples, {:.0f} tokens on average",
                                             static_cast<double>(t.samples) * (1 / steps),
                                             static_cast<double>(t.tokens) * (1 / steps)));
    if (!saves.text.empty()) text += line("saves", saves.text);
    text += step_time_line(run, t);
    if (const std::string fit = fit_text(session, ranks); !fit.empty()) text += line("fit", fit);
    text += memory_lines(run, view);
    const std::string all = view.fitting(notes, 6) + view.fitting(text, 11);
    return view.colours ? with_dim_labels(all) : all;
}

}  // namespace colonnade
