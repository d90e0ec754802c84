#include "train/config/packing_keys.h"

#include "train/config/spellings.h"

namespace colonnade {

Section packing_section() {
    using C = Config;
    return {
        "Packing",
        {
            key("packing", &C::packing, "Put several samples into one row.").also({"sample_packing"}),
            key("packing_strategy", &C::packing_strategy,
                "bfd: best-fit decreasing within windows; sequential: in order of arrival; none: packing: false."),
            key("packing_length", &C::packing_length,
                "Length of a packed row, in tokens; at least max_length. A prompt with all its answers has to fit.",
                from_to(2, 1 << 24))
                .default_is("max_length; twice that in stages dpo and rm, so that every pair fits"),
            key("packing_window", &C::packing_window, "Number of samples that bfd packs together.", from_to(1, 1e9)),
            key("eval_packing", &C::eval_packing, "Pack in evaluation; the loss does not depend on it.")
                .also({"eval_sample_packing"})
                .default_is("packing")
                .only_how_to_run(),
            key("share_prefixes", &C::share_prefixes,
                "Compute once per row what its samples begin with: system prompts, few-shot examples, earlier turns. "
                "Loss, gradients and metrics are those without it. auto: where that saves 1 % of the tokens or more."),
            key("document_mask", &C::document_mask,
                "Keep the samples of a row apart. Stage pt may set it to false: a text then sees the texts before it. "
                "Evaluation always keeps samples apart."),
        }};
}

void settle_packing(Config& c, Rules& rules) {
    const bool strategy_packs = c.packing_strategy != PackStrategy::none;
    if (!rules.given("packing")) c.packing = strategy_packs;
    if (!rules.given("packing_strategy") && !c.packing) c.packing_strategy = PackStrategy::none;
    rules.expect(c.packing == (c.packing_strategy != PackStrategy::none), {"packing_strategy", "packing"},
                 "packing_strategy {} contradicts packing: {}", spell(c.packing_strategy), c.packing);
    const bool preferences = c.rows() == RowKind::preferences;
    if (!rules.given("packing_length")) c.packing_length = preferences ? 2 * c.max_length : c.max_length;
    rules.expect(c.packing_length >= c.max_length, {"packing_length", "max_length"},
                 "packing_length {} is shorter than max_length {}", c.packing_length, c.max_length);
    if (!rules.given("eval_packing")) c.eval_packing = c.packing;
    rules.expect(
        c.share_prefixes != Tristate::on || c.packing, {"share_prefixes", "packing"},
        "share_prefixes: true shares what the samples of a row begin with, but packing: false gives each its own "
        "row");
    rules.expect(c.document_mask || c.stage == Stage::pt, {"document_mask", "stage"},
                 "document_mask: false is for stage pt: the samples of stage {} must not see each other",
                 spell(c.stage));
}

}  // namespace colonnade
