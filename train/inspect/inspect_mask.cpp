#include "train/inspect/inspect_mask.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "attention/tile_plan.h"

namespace colonnade {
namespace {

/// "layers 1 to 12", "layers 1, 3, 5 and 20 more".
std::string text_of_layers(const std::vector<int64_t>& layers) {
    constexpr size_t shown = 6;
    if (layers.size() == 1) return fmt::format("layer {}", layers[0]);
    if (layers.back() - layers.front() + 1 == std::ssize(layers))
        return fmt::format("layers {} to {}", layers.front(), layers.back());
    if (layers.size() <= shown) return fmt::format("layers {}", fmt::join(layers, ", "));
    return fmt::format("layers {} and {} more", fmt::join(layers.begin(), layers.begin() + shown, ", "),
                       layers.size() - shown);
}

}  // namespace

InspectedMask inspected_mask(const std::string& name, const ColumnMask& mask) {
    const int64_t sheets = mask.batch * mask.heads;
    InspectedMask inspected{.name = sheets > 1 ? fmt::format("{}, the first of {} sheets", name, sheets) : name,
                            .mask = first_sheet(mask),
                            .tiles = tile_picture(mask)};
    inspected.visible = static_cast<double>(count_visible_pairs(inspected.mask)) /
                        (static_cast<double>(mask.rows) * static_cast<double>(mask.columns));
    return inspected;
}

std::vector<InspectedMask> masks_of_layers(const ModelConfig& model, const ColumnMask& mask,
                                           std::span<const int32_t> positions) {
    std::vector<std::pair<int64_t, std::vector<int64_t>>> kinds;  // window, its layers from 1
    for (size_t layer = 0; layer < model.windows.size(); ++layer) {
        auto kind = std::ranges::find(kinds, model.windows[layer], &decltype(kinds)::value_type::first);
        if (kind == kinds.end()) kind = kinds.insert(kinds.end(), {model.windows[layer], {}});
        kind->second.push_back(static_cast<int64_t>(layer) + 1);
    }
    if (kinds.empty()) return {inspected_mask("", mask)};
    std::vector<InspectedMask> masks;
    for (const auto& [window, layers] : kinds) {
        const std::string sees = window > 0 ? fmt::format("a window of {} tokens", window) : "no window";
        const std::string name =
            kinds.size() == 1 && window == 0 ? "" : fmt::format("{}: {}", text_of_layers(layers), sees);
        masks.push_back(inspected_mask(name, window > 0 ? mask.with_sliding_window(window, positions) : mask));
    }
    return masks;
}

}  // namespace colonnade
