#include "data/rows/row_pairs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "data/rows/template_variables.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

int32_t read_answer_number(const Json& value, size_t answers, const std::string& where) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= answers)
        fail(Exit::data, "{}: expected the number of an answer, 0 to {}, found {}", where, answers - 1, shown(value));
    return value.get<int32_t>();
}

/// [better, worse], or an object with these and more.
RowPair read_row_pair(const Json& value, size_t answers, const std::string& where) {
    static const Columns own_names;
    if (value.is_array() && value.size() == 2)
        return {read_answer_number(value[0], answers, where + "[0]"),
                read_answer_number(value[1], answers, where + "[1]")};
    if (!value.is_object())
        fail(Exit::data, "{}: expected [better, worse] or an object with these keys, found {}", where, shown(value));
    const RowFields fields(value, own_names, where);
    RowPair pair{read_answer_number(fields.at("better"), answers, fields.place("better")),
                 read_answer_number(fields.at("worse"), answers, fields.place("worse")), read_margin(fields)};
    if (fields.find("weight")) pair.weight = fields.weight("weight");
    for (const auto& [key, unread] : fields.unread())
        fail(Exit::data, "{}: key '{}' of a pair is unknown; expected better, worse, margin, weight", where,
             shown_key(key));
    return pair;
}

void require_message_switches(const RowFields& row, const Row& result) {
    for (size_t a = 0; a < result.answers.size(); ++a)
        for (size_t i = 0; i < result.answers[a].messages.size(); ++i)
            if (const float weight = result.answers[a].messages[i].weight.value_or(1); weight != 0 && weight != 1)
                fail(Exit::data,
                     "{}: message {} of the prompt with answer {} has weight {}; expected 0 or 1: answers are compared "
                     "as a whole, and weight of the row is that of the comparison",
                     row.where(), i, a, weight);
}

}  // namespace

float read_margin(const RowFields& row) {
    const Json* margin = row.find("margin");
    if (!margin) return 0;
    if (!margin->is_number()) row.mistyped("margin", "a number");
    const double value = margin->get<double>();
    if (!(std::abs(value) <= std::numeric_limits<float>::max()))
        fail(Exit::data, "{}: key '{}': expected a number in the range of float32, found {}", row.where(),
             row.name("margin"), shown(*margin));
    return static_cast<float>(value);
}

std::vector<RowPair> read_row_pairs(const RowFields& row, size_t answers) {
    const Json& list = row.filled_list("pairs");
    std::vector<RowPair> pairs;
    std::map<std::pair<int32_t, int32_t>, size_t> seen;
    for (size_t i = 0; i < list.size(); ++i) {
        const std::string where = fmt::format("{}: {}[{}]", row.where(), row.name("pairs"), i);
        const RowPair pair = pairs.emplace_back(read_row_pair(list[i], answers, where));
        if (pair.better == pair.worse)
            fail(Exit::data, "{}: answer {} is compared with itself; expected two answers", where, pair.better);
        const auto [first, is_new] = seen.emplace(std::minmax(pair.better, pair.worse), i);
        if (!is_new)
            fail(Exit::data, "{}: answers {} and {} are compared in {}[{}] already; expected one pair of them", where,
                 pair.better, pair.worse, row.name("pairs"), first->second);
    }
    return pairs;
}

void keep_compared(Row& row) {
    std::vector<int32_t> numbers(row.answers.size(), -1);
    for (const RowPair& pair : row.pairs)
        for (const int32_t answer : {pair.better, pair.worse}) numbers[static_cast<size_t>(answer)] = 0;
    std::vector<Row> compared;
    for (size_t i = 0; i < numbers.size(); ++i)
        if (numbers[i] == 0) {
            numbers[i] = static_cast<int32_t>(compared.size());
            compared.push_back(std::move(row.answers[i]));
        }
    row.answers = std::move(compared);
    for (RowPair& pair : row.pairs)
        for (int32_t* answer : {&pair.better, &pair.worse}) *answer = numbers[static_cast<size_t>(*answer)];
}

Row with_settings(const RowFields& row, Row result, MessageStyle style) {
    result.margin = read_margin(row);
    require_message_switches(row, result);
    if (result.answers.empty() || result.answers[0].messages.empty()) return result;
    const Json variables = read_variables(row, style);
    for (Row& answer : result.answers) answer.variables = variables;
    return result;
}

}  // namespace colonnade
