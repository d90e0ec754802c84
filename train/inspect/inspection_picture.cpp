#include "train/inspect/inspection_picture.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace colonnade {
namespace {

constexpr int64_t margin = 8, strip_height = 20, gap = 4;
constexpr Colour paper{255, 255, 255}, hidden{235, 237, 240}, learned{21, 128, 61}, one_sample{37, 99, 235};
/// Neighbours in the list differ in hue and in brightness.
constexpr std::array<Colour, 8> palette = {{{37, 99, 235},
                                            {234, 88, 12},
                                            {15, 118, 110},
                                            {147, 51, 234},
                                            {161, 98, 7},
                                            {190, 18, 60},
                                            {71, 85, 105},
                                            {2, 132, 199}}};

Colour mix(Colour from, Colour to, double part) {
    const auto between = [&](uint8_t a, uint8_t b) {
        return static_cast<uint8_t>(std::lround(a + part * (static_cast<double>(b) - a)));
    };
    return {between(from.red, to.red), between(from.green, to.green), between(from.blue, to.blue)};
}

/// `count` things in `pixels` pixels.
struct Scale {
    int64_t count, pixels;

    int64_t begin(int64_t pixel) const { return pixel * count / pixels; }
    int64_t end(int64_t pixel) const { return std::max(begin(pixel) + 1, begin(pixel + 1)); }
};

Scale scale_of(int64_t count, int64_t most) {
    return {count, count > most ? most : count * std::max<int64_t>(1, most / std::max<int64_t>(1, count))};
}

Colour colour_of(const InspectedRow& row, int64_t token) {
    if (row.samples.empty()) return one_sample;
    const int32_t sample = row.samples[static_cast<size_t>(token)];
    return sample < 0 ? hidden : palette[static_cast<size_t>(sample) % palette.size()];
}

void fill_column(PixelPicture& picture, int64_t x, int64_t top, Colour colour) {
    for (int64_t y = top; y < top + strip_height; ++y) picture.at(x, y) = colour;
}

void draw_strips(PixelPicture& picture, int64_t top, const InspectedRow& row, const Scale& keys) {
    for (int64_t x = 0; x < keys.pixels; ++x) {
        const int64_t token = keys.begin(x);
        const bool shared = row.users[static_cast<size_t>(token)] > 1;
        fill_column(picture, margin + x, top, mix(colour_of(row, token), paper, shared ? 0.5 : 0));
        int64_t of_loss = 0;
        for (int64_t t = token; t < keys.end(x); ++t) of_loss += row.weights[static_cast<size_t>(t)] > 0;
        const double part = static_cast<double>(of_loss) / static_cast<double>(keys.end(x) - token);
        fill_column(picture, margin + x, top + strip_height + gap, mix(hidden, learned, part));
    }
}

/// Part of the pairs that are visible, of at most 4 x 4 that are looked at.
double visible_part(const ColumnMask& mask, int64_t first_query, int64_t end_query, int64_t first_key,
                    int64_t end_key) {
    constexpr int64_t looks = 4;
    const int64_t query_step = std::max<int64_t>(1, (end_query - first_query) / looks);
    const int64_t key_step = std::max<int64_t>(1, (end_key - first_key) / looks);
    int64_t pairs = 0, visible = 0;
    for (int64_t i = first_query; i < end_query; i += query_step)
        for (int64_t j = first_key; j < end_key; j += key_step, ++pairs) visible += mask.sees(0, 0, i, j);
    return static_cast<double>(visible) / static_cast<double>(pairs);
}

void draw_mask(PixelPicture& picture, int64_t top, const InspectedRow& row, const ColumnMask& mask, const Scale& keys,
               const Scale& queries) {
    for (int64_t y = 0; y < queries.pixels; ++y)
        for (int64_t x = 0; x < keys.pixels; ++x) {
            const double part = visible_part(mask, queries.begin(y), queries.end(y), keys.begin(x), keys.end(x));
            picture.at(margin + x, top + y) = mix(hidden, colour_of(row, keys.begin(x)), part);
        }
}

}  // namespace

PixelPicture picture_of(const Inspection& all, int64_t most) {
    const int64_t strips = all.row.ids.empty() ? 0 : 2 * (strip_height + gap);
    int64_t width = 1, height = margin;
    for (const InspectedMask& each : all.masks) {
        width = std::max(width, 2 * margin + scale_of(each.mask.columns, most).pixels);
        height += strips + scale_of(each.mask.rows, most).pixels + margin;
    }
    PixelPicture picture(width, height, paper);
    int64_t top = margin;
    for (const InspectedMask& each : all.masks) {
        const Scale keys = scale_of(each.mask.columns, most), queries = scale_of(each.mask.rows, most);
        if (strips > 0) draw_strips(picture, top, all.row, keys);
        draw_mask(picture, top + strips, all.row, each.mask, keys, queries);
        top += strips + queries.pixels + margin;
    }
    return picture;
}

}  // namespace colonnade
