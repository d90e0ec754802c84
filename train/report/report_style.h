#pragma once
// What every page of train/report has in common: its head, its style, its script. A page is one file that loads nothing: its
// content security policy forbids it.

#include <string>

namespace colonnade {

/// What a page has of its own, behind what all have.
struct PageParts {
    std::string style{};  ///< CSS
    std::string
        script{};  ///< runs when the body is there; show_tip(event, text) and hide_tip() show the box at the pointer
};

/// The page with `body`, an HTML text.
std::string html_page(const std::string& title, const std::string& body, const PageParts& own = {});

}  // namespace colonnade
