#include "attention/bench/mask_file.h"

#include <gtest/gtest.h>

#include "engine/io/hdf5.h"
#include "tests/support/expect_error.h"

namespace colonnade {
namespace {

std::string mask_file(const std::string& name, int64_t causal,
                      const std::vector<std::pair<std::string, std::vector<int32_t>>>& vectors) {
    const std::string path = testing::TempDir() + "colonnade_mask_" + name + ".h5";
    std::remove(path.c_str());
    Hdf5Writer file(path);
    for (auto [vector, values] : vectors)
        file.write(vector, Tensor(values.data(), DType::i32, {1, 1, static_cast<int64_t>(values.size())}));
    if (causal >= 0) file.attribute("causal", causal);
    file.close();
    return path;
}

TEST(MaskFile, ReadsWhatAMaskCarries) {
    const ColumnMask document = document_mask(6, {2, 5});
    const auto path = mask_file("document", 0, {{"lts", document.lts}, {"ute", document.ute}});
    EXPECT_EQ(read_column_mask(path).dense(), document.dense());
    const ColumnMask rectangular = read_column_mask(path, 9);
    EXPECT_EQ(rectangular.rows, 9);
    EXPECT_EQ(rectangular.columns, 6);
    std::remove(path.c_str());
}

TEST(MaskFile, RefusesBadFiles) {
    const auto refuse = [](const char* part, const std::string& path) {
        expect_error(Exit::data, part, [&] { read_column_mask(path); });
        expect_error(Exit::data, path, [&] { read_column_mask(path); });
        std::remove(path.c_str());
    };
    refuse("attribute causal is missing", mask_file("no_causal", -1, {{"lts", {1, 2}}}));
    refuse("causal is 2, expected 0 or 1", mask_file("causal_2", 2, {{"lts", {1, 2}}}));
    refuse("datasets lts uts: expected", mask_file("lts_uts", 1, {{"lts", {1, 2}}, {"uts", {1, 2}}}));
    refuse("datasets: expected", mask_file("none", 1, {}));
    refuse("lte and lts have different shapes", mask_file("shape", 1, {{"lts", {1, 2}}, {"lte", {1, 2, 3}}}));
    refuse("column 1] is 3, expected 0..2", mask_file("range", 1, {{"lts", {1, 3}}}));
}

}  // namespace
}  // namespace colonnade
