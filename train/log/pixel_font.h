#pragma once
// A bitmap font of 5 x 9 pixels: capitals and digits fill rows 0 to 6, descenders reach into rows 7 and 8. Each row is
// one base-32 digit (0-9, A-V) whose highest bit is the leftmost pixel. Missing rows are empty.

#include <array>
#include <string_view>

namespace colonnade::pixel_font {

constexpr int width = 5, height = 9, cap_height = 7, advance = 6;

struct Glyph {
    char character;
    std::string_view rows;
};

constexpr auto glyphs = std::to_array<Glyph>({
    {' ', ""},        {'!', "4444404"},   {'"', "AAA"},     {'#', "AAVAVAA"}, {'%', "OP248J3"},   {'\'', "444"},
    {'(', "2488842"}, {')', "8422248"},   {'*', "04LEL4"},  {'+', "044V44"},  {',', "00000CC48"}, {'-', "000V"},
    {'.', "00000CC"}, {'/', "01248G"},    {':', "0CC0CC"},  {'<', "248G842"}, {'=', "00V0V"},     {'>', "8421248"},
    {'?', "EH12404"}, {'[', "E88888E"},   {']', "E22222E"}, {'^', "4AH"},     {'_', "0000000V"},  {'|', "4444444"},
    {'~', "008L2"},   {'0', "EHJLPHE"},   {'1', "4C4444E"}, {'2', "EH1248V"}, {'3', "V2421HE"},   {'4', "26AIV22"},
    {'5', "VGU11HE"}, {'6', "68GUHHE"},   {'7', "V124888"}, {'8', "EHHEHHE"}, {'9', "EHHF12C"},   {'A', "EHHVHHH"},
    {'B', "UHHUHHU"}, {'C', "EHGGGHE"},   {'D', "UHHHHHU"}, {'E', "VGGUGGV"}, {'F', "VGGUGGG"},   {'G', "EHGNHHF"},
    {'H', "HHHVHHH"}, {'I', "E44444E"},   {'J', "72222IC"}, {'K', "HIKOKIH"}, {'L', "GGGGGGV"},   {'M', "HRLLHHH"},
    {'N', "HHPLJHH"}, {'O', "EHHHHHE"},   {'P', "UHHUGGG"}, {'Q', "EHHHLID"}, {'R', "UHHUKIH"},   {'S', "FGGE11U"},
    {'T', "V444444"}, {'U', "HHHHHHE"},   {'V', "HHHHHA4"}, {'W', "HHHLLLA"}, {'X', "HHA4AHH"},   {'Y', "HHHA444"},
    {'Z', "V1248GV"}, {'a', "00E1FHF"},   {'b', "GGMPHHU"}, {'c', "00EGGHE"}, {'d', "11DJHHF"},   {'e', "00EHVGE"},
    {'f', "698S888"}, {'g', "00FHHHF1E"}, {'h', "GGMPHHH"}, {'i', "40C444E"}, {'j', "2062222IC"}, {'k', "GGIKOKI"},
    {'l', "C44444E"}, {'m', "00QLLLL"},   {'n', "00MPHHH"}, {'o', "00EHHHE"}, {'p', "00UHHHUGG"}, {'q', "00FHHHF11"},
    {'r', "00MPGGG"}, {'s', "00FGE1U"},   {'t', "88S8896"}, {'u', "00HHHJD"}, {'v', "00HHHA4"},   {'w', "00HHLLA"},
    {'x', "00HA4AH"}, {'y', "00HHHHF1E"}, {'z', "00V248V"},
});
constexpr std::string_view box = "VHHHHHV";  ///< drawn for characters that the font lacks

constexpr std::string_view rows_of(char character) {
    for (const Glyph& glyph : glyphs)
        if (glyph.character == character) return glyph.rows;
    return box;
}

/// True if the pixel of a glyph is set.
constexpr bool pixel(std::string_view rows, int x, int y) {
    if (y >= static_cast<int>(rows.size())) return false;
    const char digit = rows[static_cast<size_t>(y)];
    const int bits = digit <= '9' ? digit - '0' : digit - 'A' + 10;
    return bits >> (width - 1 - x) & 1;
}

}  // namespace colonnade::pixel_font
