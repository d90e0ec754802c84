// The picture of an inspection: its pixels are the mask.

#include "train/inspect/inspection_picture.h"

#include <gtest/gtest.h>
#include <png.h>

#include "attention/mask_families.h"
#include "train/inspect/inspect_mask.h"

namespace colonnade {
namespace {

TEST(InspectionPicture, EveryPixelIsAPairOfTheMask) {
    const int64_t n = 96;
    for (const MaskFamily& family : mask_families()) {
        const ColumnMask mask = family.build(default_parameters(n, n));
        Inspection all{.masks = {inspected_mask(std::string(family.name), mask)}};
        const PixelPicture picture = picture_of(all, n);
        ASSERT_EQ(picture.width, n + 16) << family.name;
        const Colour paper = picture.at(0, 0);
        const std::vector<uint8_t> dense = all.masks[0].mask.dense();
        Colour seen, hidden;
        for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < n; ++j) {
                Colour& of_kind = dense[static_cast<size_t>(i * n + j)] ? seen : hidden;
                if (of_kind == Colour()) of_kind = picture.at(8 + j, 8 + i);
                ASSERT_EQ(picture.at(8 + j, 8 + i), of_kind) << family.name << ' ' << i << ' ' << j;
            }
        EXPECT_NE(seen, hidden) << family.name;
        EXPECT_NE(seen, paper) << family.name;
    }
}

TEST(InspectionPicture, LongRowsAreScaledDown) {
    const Inspection all{.masks = {inspected_mask("causal", causal_mask(5000, 5000))}};
    const PixelPicture picture = picture_of(all, 500);
    EXPECT_EQ(picture.width, 516);
    EXPECT_EQ(picture.height, 516);
    EXPECT_EQ(picture.at(8 + 100, 8 + 400), picture.at(8 + 10, 8 + 490));
    EXPECT_NE(picture.at(8 + 400, 8 + 100), picture.at(8 + 10, 8 + 490));
}

TEST(Png, IsWhatWasDrawn) {
    PixelPicture picture(7, 5);
    for (int64_t y = 0; y < 5; ++y)
        for (int64_t x = 0; x < 7; ++x)
            picture.at(x, y) = {static_cast<uint8_t>(40 * x), static_cast<uint8_t>(60 * y), 9};
    const std::string file = png_of(picture);
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    ASSERT_NE(png_image_begin_read_from_memory(&image, file.data(), file.size()), 0);
    image.format = PNG_FORMAT_RGB;
    ASSERT_EQ(image.width, 7u);
    ASSERT_EQ(image.height, 5u);
    std::vector<Colour> read(35);
    ASSERT_NE(png_image_finish_read(&image, nullptr, read.data(), 0, nullptr), 0);
    EXPECT_EQ(read, picture.pixels);
}

}  // namespace
}  // namespace colonnade
