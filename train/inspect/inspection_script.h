#pragma once
// The script and the style of the inspection's page. They know the elements that inspection_page() writes by their ids.

#include <string>

namespace colonnade {

std::string inspection_script();
std::string inspection_style();

// Parts of the script, in this order behind the one that unpacks inspection_json().
extern const char* const mask_colors_script;   ///< which rule hides a pair; colours of pixels
extern const char* const mask_drawing_script;  ///< draws a view of the mask, with its strips
extern const char* const picture_script;       ///< start_picture: zoom, hover, click
extern const char* const sample_script;        ///< start_samples: the list and the tokens of one

}  // namespace colonnade
