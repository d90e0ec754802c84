#pragma once
// What every page of train/report has in common: its head, its style, its script. A page is one file that loads nothing: its
// content security policy forbids it.

#include <string>

namespace colonnade {

/// The page with `body`, an HTML text.
std::string html_page(const std::string& title, const std::string& body);

}  // namespace colonnade
