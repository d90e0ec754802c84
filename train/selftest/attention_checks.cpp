#include "train/selftest/attention_checks.h"

#include <fmt/format.h>

#include "attention/mask_families.h"
#include "attention/random_attention.h"

namespace colonnade {
namespace {

/// Not a multiple of a tile, so that the last tiles are cut.
constexpr int64_t length = 200;

Finding finding_of(const AttentionCheck& check, std::string_view family) {
    const auto& [errors, bounds] = check;
    const auto named = [&](double error, double bound, const char* of) {
        return Finding{.found = error, .bound = bound, .where = fmt::format("{} of mask {}", of, family)};
    };
    return worst_of({named(errors.out, bounds.out, "out"), named(errors.lse, bounds.lse, "lse"),
                     named(errors.dq, bounds.dq, "dq"), named(errors.dk, bounds.dk, "dk"),
                     named(errors.dv, bounds.dv, "dv")});
}

Finding check_families(const Context& ctx, int64_t head_dim) {
    const AttentionSize size{.heads = 2,
                             .kv_heads = 1,
                             .head_dim = head_dim,
                             .dtype = ctx.device == Device::cuda ? DType::bf16 : DType::f32};
    std::vector<Finding> findings;
    for (const MaskFamily& family : mask_families()) {
        const ColumnMask mask = family.build(default_parameters(length, length, size.heads));
        findings.push_back(finding_of(check_flashmask(ctx, mask, size), family.name));
    }
    return worst_of(findings);
}

}  // namespace

std::vector<Check> attention_checks(const Context& ctx) {
    std::vector<Check> checks;
    for (const int64_t head_dim : {20, 64, 96, 128, 256}) {
        const bool on_cpu = ctx.device == Device::cpu && (head_dim == 20 || head_dim == 64);
        if (!on_cpu && (ctx.device == Device::cpu || !flashmask_runs(ctx.device, head_dim))) continue;
        checks.push_back({.name = fmt::format("attention, head dim {}", head_dim),
                          .compared = fmt::format("{} masks with dense attention in double, forward and backward",
                                                  mask_families().size()),
                          .run = [ctx, head_dim] { return check_families(ctx, head_dim); }});
    }
    return checks;
}

}  // namespace colonnade
