// Pictures of tile plans compared with the dense mask, and bench_attention --show-plan, which prints them.

#include "attention/plan_picture.h"

#include <gtest/gtest.h>

#include "attention/mask_families.h"
#include "engine/io/hdf5.h"
#include "tests/support/program.h"
#include "tests/support/random_mask.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

/// tile_classes() computed from every pair.
std::string classes_of(const ColumnMask& mask, int64_t tile_rows, int64_t tile_columns) {
    const auto visible = mask.dense();
    std::string classes;
    for (int64_t sheet = 0; sheet < mask.batch * mask.heads; ++sheet)
        for (int64_t row = 0; row < mask.rows; row += tile_rows)
            for (int64_t column = 0; column < mask.columns; column += tile_columns) {
                int64_t seen = 0, all = 0;
                for (int64_t i = row; i < std::min(row + tile_rows, mask.rows); ++i)
                    for (int64_t j = column; j < std::min(column + tile_columns, mask.columns); ++j, ++all)
                        seen += visible[static_cast<size_t>((sheet * mask.rows + i) * mask.columns + j)];
                classes += seen == 0 ? '.' : seen == all ? '#' : '/';
            }
    return classes;
}

TEST(PlanPicture, ClassesAreThoseOfThePairs) {
    for (const MaskFamily& family : mask_families()) {
        const ColumnMask mask = family.build(default_parameters(130, 130, 2, 3));
        EXPECT_EQ(tile_classes({}, make_tile_plan(mask, 16, 8)), classes_of(mask, 16, 8)) << family.name;
    }
    for (uint64_t seed = 0; seed < 50; ++seed) {
        const auto s = static_cast<int64_t>(seed);
        const ColumnMask mask = random_column_mask(seed, 1 + s % 2, 1 + s % 3, s * 7 % 41, s * 11 % 37);
        EXPECT_EQ(tile_classes({}, make_tile_plan(mask, 5, 3)), classes_of(mask, 5, 3)) << "seed " << seed;
    }
}

TEST(PlanPicture, ClassesOnTheGpu) {
    if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    const Context ctx{.device = Device::cuda, .gpu = test_gpu()};
    for (const MaskFamily& family : mask_families()) {
        const ColumnMask mask = family.build(default_parameters(2560, 2560, 2, 3));
        Arena planned(Device::cuda);
        GpuTilePlan::lay_out(planned, mask);
        Arena arena(Device::cuda, planned.bytes());
        const TilePlan plan = make_tile_plan(ctx, GpuTilePlan::lay_out(arena, mask), mask);
        EXPECT_EQ(tile_classes(ctx, plan), classes_of(mask, 64, 64)) << family.name;
    }
}

TEST(PlanPicture, HasCountsAndNumbers) {
    const ColumnMask mask = causal_document_mask(40, {16, 36});
    EXPECT_EQ(plan_picture({}, mask, make_tile_plan(mask, 4, 4)),
              "40 queries x 40 keys in tiles of 4 x 4: 100 tiles, 25 active (25.0 %), 16 full and 9 partial\n"
              "21.6 % of all (query, key) pairs are visible\n"
              "      0       8\n"
              "    0 /.........\n"
              "    1 #/........\n"
              "    2 ##/.......\n"
              "    3 ###/......\n"
              "    4 ..../.....\n"
              "    5 ....#/....\n"
              "    6 ....##/...\n"
              "    7 ....###/..\n"
              "    8 ....####/.\n"
              "    9 ..........\n");
}

TEST(PlanPicture, LargePlansAreMerged) {
    const ColumnMask mask = causal_document_mask(40, {16, 36});
    EXPECT_EQ(plan_picture({}, mask, make_tile_plan(mask, 4, 4), 5),
              "40 queries x 40 keys in tiles of 4 x 4: 100 tiles, 25 active (25.0 %), 16 full and 9 partial\n"
              "21.6 % of all (query, key) pairs are visible\n"
              "each character stands for 2 x 2 tiles\n"
              "      0\n"
              "    0 /....\n"
              "    2 #/...\n"
              "    4 ../..\n"
              "    6 ..#/.\n"
              "    8 ..///\n");
    // 10 is not a multiple of 3: the last character stands for one block.
    const std::string thirds = plan_picture({}, mask, make_tile_plan(mask, 4, 4), 4);
    EXPECT_NE(thirds.find("3 x 3 tiles"), std::string::npos) << thirds;
    EXPECT_NE(thirds.find("\n    9 ....\n"), std::string::npos) << thirds;
}

TEST(PlanPicture, EverySheetHasItsOwn) {
    const ColumnMask mask = stack({causal_mask(8, 8), causal_document_mask(8, {4, 8})});
    const std::string picture = plan_picture({}, mask, make_tile_plan(mask, 4, 4));
    EXPECT_NE(picture.find("8 tiles, 5 active (62.5 %), 1 full and 4 partial\n"), std::string::npos) << picture;
    EXPECT_NE(picture.find("batch 0, mask head 0\n      0\n    0 /.\n    1 #/\n"
                           "batch 1, mask head 0\n      0\n    0 /.\n    1 ./\n"),
              std::string::npos)
        << picture;
}

std::string shown(const std::vector<std::string>& arguments) {
    std::vector<std::string> all{"--show-plan", "--device", "cpu"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Program::Result result = run("bench_attention", all);
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return result.out;
}

TEST(ShowPlan, PrintsMasksOfFamiliesAndOfFiles) {
    const ColumnMask documents = document_mask(1024, {100, 512, 1000});
    const std::string picture = plan_picture({}, documents, make_tile_plan(documents, 32, 64));
    EXPECT_EQ(shown({"--mask", "document", "--length", "1024", "--ends", "100,512,1000", "--tile-rows", "32"}),
              "document: " + picture);

    const std::string path = testing::TempDir() + "colonnade_show_plan.h5";
    std::remove(path.c_str());
    Hdf5Writer file(path);
    auto lts = documents.lts, ute = documents.ute;
    file.write("lts", Tensor(lts.data(), DType::i32, {1024}));
    file.write("ute", Tensor(ute.data(), DType::i32, {1024}));
    file.attribute("causal", int64_t{0});
    file.close();
    EXPECT_EQ(shown({"--columns-file", path, "--tile-rows", "32"}), path + ": " + picture);
    std::remove(path.c_str());

    const std::string all = shown({"--length", "256,512"});
    for (const MaskFamily& family : mask_families())
        EXPECT_NE(all.find(fmt::format("{}: 512 queries x 512 keys", family.name)), std::string::npos) << family.name;
}

TEST(ShowPlan, TimesNothing) {
    for (const std::vector<std::string>& other :
         {std::vector<std::string>{"--check"}, {"--json", "-"}, {"--repeat", "3"}, {"--without-full"}}) {
        std::vector<std::string> arguments{"--show-plan"};
        arguments.insert(arguments.end(), other.begin(), other.end());
        const Program::Result result = run("bench_attention", arguments);
        EXPECT_EQ(result.exit, static_cast<int>(Exit::config));
        EXPECT_NE(result.err.find("bench_attention: error: "), std::string::npos) << result.err;
        EXPECT_NE(result.err.find(other.front()), std::string::npos) << result.err;
    }
}

TEST(ExampleAttention, IsCloseToDenseAttention) {
    const Program::Result result = run("example_attention", {});
    EXPECT_EQ(result.exit, 0) << result.out << result.err;
    EXPECT_EQ(result.err, "");
    for (const char* part : {"1024 tokens", "dv ", "forward and backward: "})
        EXPECT_NE(result.out.find(part), std::string::npos) << result.out;
}

}  // namespace
}  // namespace colonnade
