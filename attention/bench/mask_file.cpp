#include "attention/bench/mask_file.h"

#include <utility>

#include "engine/io/hdf5.h"

namespace colonnade {
namespace {

MaskVectors form_of(const std::string& path, bool lts, bool lte, bool uts, bool ute) {
    if (lts && lte && uts && ute) return MaskVectors::all;
    if (lts && !uts && !(lte && ute)) return lte ? MaskVectors::lts_lte : ute ? MaskVectors::lts_ute : MaskVectors::lts;
    fail(Exit::data, "{}: datasets{}{}{}{}: expected lts; lts and lte; lts and ute; or lts, lte, uts and ute", path,
         lts ? " lts" : "", lte ? " lte" : "", uts ? " uts" : "", ute ? " ute" : "");
}

}  // namespace

ColumnMask read_column_mask(const std::string& path, int64_t rows) {
    const Hdf5Reader file(path);
    if (!file.has_attribute("causal")) fail(Exit::data, "{}: attribute causal is missing, expected 0 or 1", path);
    const int64_t causal = file.int_attribute("causal");
    if (causal != 0 && causal != 1) fail(Exit::data, "{}: attribute causal is {}, expected 0 or 1", path, causal);

    ColumnMask mask{.causal = causal == 1};
    mask.vectors = form_of(path, file.has("lts"), file.has("lte"), file.has("uts"), file.has("ute"));
    const auto shape = file.shape("lts");
    if (shape.empty() || shape.size() > 3)
        fail(Exit::data, "{}: lts has {} dims, expected [columns], [heads, columns] or [batch, heads, columns]", path,
             shape.size());
    mask.columns = shape.back();
    if (shape.size() >= 2) mask.heads = shape[shape.size() - 2];
    if (shape.size() == 3) mask.batch = shape[0];
    mask.rows = rows == 0 ? mask.columns : rows;
    const std::pair<const char*, std::vector<int32_t>*> vectors[] = {
        {"lts", &mask.lts}, {"lte", &mask.lte}, {"uts", &mask.uts}, {"ute", &mask.ute}};
    for (const auto& [name, into] : vectors) {
        if (!file.has(name)) continue;
        if (file.shape(name) != shape) fail(Exit::data, "{}: {} and lts have different shapes", path, name);
        if (file.dtype(name) != DType::i32)
            fail(Exit::data, "{}: {} holds {}, expected i32", path, name, name_of(file.dtype(name)));
        *into = file.read_all<int32_t>(name);
    }
    try {
        mask.validate();
    } catch (const Error& e) {
        fail(e.exit(), "{}: {}", path, e.what());
    }
    return mask;
}

}  // namespace colonnade
