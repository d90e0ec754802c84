#include "train/inspect/inspection_json.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "train/report/html.h"

namespace colonnade {
namespace {

/// In runs of equal values, or of values that rise by one, if three numbers for each are fewer.
template <class T>
Json list_of(const std::vector<T>& values) {
    const auto number = [](T value) -> Json {
        if constexpr (std::is_integral_v<T>)
            return value;
        else
            return std::isfinite(value) ? Json::parse(number_text(value)) : Json();  // six digits
    };
    Json runs = Json::array();
    for (size_t begin = 0, end; begin < values.size() && runs.size() < values.size(); begin = end) {
        const bool rises = begin + 1 < values.size() && values[begin + 1] == values[begin] + 1;
        const T step = rises ? 1 : 0;
        for (end = begin + 1; end < values.size() && values[end] == values[end - 1] + step;) ++end;
        runs.insert(runs.end(), {number(values[begin]), end - begin, number(step)});
    }
    if (runs.size() < values.size()) return {{"runs", runs}};
    Json plain = Json::array();
    for (const T value : values) plain.push_back(number(value));
    return plain;
}

/// Every token once.
class TokenTable {
  public:
    int32_t entry(int32_t id, const std::string& text, bool special = false) {
        const auto [at, is_new] = entries_.try_emplace({id, text}, std::ssize(entries_));
        if (is_new) {
            ids_.push_back(id);
            texts_.push_back(text);
            special_.push_back(false);
        }
        if (special) special_[static_cast<size_t>(at->second)] = true;
        return at->second;
    }
    Json json() const {
        Json special = Json::array();
        for (size_t i = 0; i < special_.size(); ++i)
            if (special_[i]) special.push_back(i);
        return {{"ids", list_of(ids_)}, {"texts", texts_}, {"special", special}};
    }

  private:
    std::map<std::pair<int32_t, std::string>, int32_t> entries_{};
    std::vector<int32_t> ids_{};
    std::vector<std::string> texts_{};
    std::vector<bool> special_{};
};

Json row_json(const InspectedRow& row, const std::vector<int32_t>& tokens) {
    if (tokens.empty()) return nullptr;
    return {{"number", row.number},
            {"length", tokens.size()},
            {"tokens", list_of(tokens)},
            {"positions", list_of(row.positions)},
            {"weights", list_of(row.weights)},
            {"samples", list_of(row.samples)},
            {"sequences", list_of(row.sequences)},
            {"users", list_of(row.users)}};
}

/// "3#1/12.": three full tiles, a partial one, twelve empty ones.
std::string counted(const std::string& classes) {
    std::string text;
    for (size_t begin = 0, end; begin < classes.size(); begin = end) {
        for (end = begin; end < classes.size() && classes[end] == classes[begin];) ++end;
        text += fmt::format("{}{}", end - begin, classes[begin]);
    }
    return text;
}

Json mask_json(const InspectedMask& shown) {
    const ColumnMask& mask = shown.mask;
    std::vector<int32_t> lts, lte, uts, ute;
    for (int64_t j = 0; j < mask.columns; ++j) {
        const ColumnMask::Bounds x = mask.bounds(0, 0, j);
        lts.push_back(x.lts);
        lte.push_back(x.lte);
        uts.push_back(x.uts);
        ute.push_back(x.ute);
    }
    Json classes = Json::array();
    for (const std::string& line : shown.tiles.classes) classes.push_back(counted(line));
    return {{"name", shown.name},
            {"causal", mask.causal},
            {"rows", mask.rows},
            {"columns", mask.columns},
            {"lts", list_of(lts)},
            {"lte", list_of(lte)},
            {"uts", list_of(uts)},
            {"ute", list_of(ute)},
            {"window", mask.position_window},
            {"positions", list_of(mask.row_positions)},
            {"visible", shown.visible},
            {"tile", shown.tiles.tile},
            {"classes", classes}};
}

std::vector<int32_t> tokens_of(const InspectedSequence& sequence, TokenTable& table) {
    std::vector<int32_t> tokens;
    for (size_t k = 0; k < sequence.ids.size(); ++k)
        tokens.push_back(
            table.entry(sequence.ids[k], sequence.texts[k], k < sequence.special.size() && sequence.special[k]));
    return tokens;
}

/// The tokens are those of the packed row.
bool is_of_row(const std::vector<int32_t>& tokens, const std::vector<int32_t>& rows,
               const std::vector<int32_t>& of_row) {
    if (tokens.size() != rows.size()) return false;
    for (size_t k = 0; k < tokens.size(); ++k)
        if (of_row.at(static_cast<size_t>(rows[k])) != tokens[k]) return false;
    return true;
}

}  // namespace

Json inspection_json(const Inspection& inspection) {
    TokenTable table;
    std::vector<int32_t> of_row;
    for (size_t i = 0; i < inspection.row.ids.size(); ++i)
        of_row.push_back(table.entry(inspection.row.ids[i], inspection.row.texts[i]));
    Json samples = Json::array(), masks = Json::array();
    for (const InspectedSample& sample : inspection.samples) {
        Json sequences = Json::array();
        for (const InspectedSequence& sequence : sample.sequences) {
            const std::vector<int32_t> tokens = tokens_of(sequence, table);
            sequences.push_back({{"name", sequence.name},
                                 {"shared", sequence.shared},
                                 {"weights", list_of(sequence.weights)},
                                 {"rows", list_of(sequence.rows)}});
            if (!is_of_row(tokens, sequence.rows, of_row)) sequences.back()["tokens"] = list_of(tokens);
        }
        samples.push_back(
            {{"place", sample.place}, {"size", sample.tokens}, {"notes", sample.notes}, {"sequences", sequences}});
    }
    for (const InspectedMask& mask : inspection.masks) masks.push_back(mask_json(mask));
    return {{"tokens", table.json()},
            {"row", row_json(inspection.row, of_row)},
            {"masks", masks},
            {"samples", samples},
            {"shown", inspection.shown}};
}

}  // namespace colonnade
