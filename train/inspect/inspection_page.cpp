#include "train/inspect/inspection_page.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "train/inspect/inspection_json.h"
#include "train/inspect/inspection_script.h"
#include "train/report/html.h"
#include "train/report/report_style.h"

namespace colonnade {
namespace {

std::string head(const Inspection& inspection) {
    std::string text = "<header><h1>" + escaped(inspection.title) + "</h1></header>\n<div class=\"facts\">\n";
    for (const auto& [name, value] : inspection.facts)
        text += fmt::format("<div><span>{}</span> <b>{}</b></div>\n", escaped(name), escaped(value));
    return text + "</div>\n";
}

/// The notes, suspicious ones first. A place leads to the sample with that place.
std::string notes(const Inspection& inspection) {
    if (inspection.notes.empty()) return "";
    std::map<std::string, size_t> numbers;
    for (size_t i = 0; i < inspection.samples.size(); ++i) numbers.try_emplace(inspection.samples[i].place, i + 1);
    std::vector<InspectedNote> sorted = inspection.notes;
    const auto suspicious = [](const InspectedNote& note) { return note.effect == "suspicious"; };
    std::ranges::stable_partition(sorted, suspicious);
    std::vector<std::vector<std::string>> rows;
    for (const InspectedNote& note : sorted) {
        std::string places;
        for (const std::string& place : note.places) {
            const auto sample = numbers.find(place);
            const std::string text = escaped(place);
            if (!places.empty()) places += ", ";
            places +=
                sample == numbers.end() ? text : fmt::format("<a href=\"#sample={}\">{}</a>", sample->second, text);
        }
        if (note.rows > std::ssize(note.places) && !note.places.empty()) places += ", \xE2\x80\xA6";
        rows.push_back({fmt::format("<span class=\"note {0}\">{0}</span>", escaped(note.effect)), escaped(note.label),
                        escaped(note.meaning), fmt::format("{}", note.rows), places});
    }
    return fmt::format("<section id=\"notes\">\n<h2>{}</h2>\n{}</section>\n",
                       suspicious(sorted.front()) ? "Suspicious rows" : "What was noted",
                       html_table_of_markup({"effect", "what", "meaning", "rows", "which"}, rows));
}

/// An entry of a key: a colour with its meaning. `shown`: in which pictures, as classes.
std::string key(const char* color, const char* meaning, const char* shown = "") {
    return fmt::format("<li class=\"{}\"><i class=\"{}\"></i>{}</li>\n", shown, color, meaning);
}

std::string picture_key() {
    return "<ul class=\"key-list\" id=\"picture-key\">\n" +
           key("sample-colors", "the query may see the key: the colour of its sample, a shade for each branch",
               "exact of-row") +
           key("crossing", "it may see a key that other samples have alone (document_mask: false, or a fault)",
               "exact of-row crossing-seen") +
           key("alone", "the query may see the key", "exact of-mask") +
           key("lower", "hidden by [lts, lte) of the key", "exact has-lower") +
           key("upper", "hidden by [uts, ute) of the key", "exact has-upper") +
           key("future", "hidden: a later key (causal)", "exact has-future") +
           key("window", "hidden: outside the window", "exact has-window") +
           key("border", "border of tiles", "exact has-borders") + key("full", "tile: all pairs visible", "tiles") +
           key("partial", "tile: some pairs visible", "tiles") +
           key("none", "tile: no pair visible, skipped", "tiles") +
           key("shared", "shared by several sequences", "of-row has-shared") +
           key("padding", "padding", "of-row has-padding") +
           key("learned", "learned: the strip's height is the part of the tokens", "of-row") + "</ul>\n";
}

std::string picture(const Inspection& inspection) {
    if (inspection.masks.empty()) return "";
    std::string heading = "The mask", about;
    const InspectedRow& row = inspection.row;
    if (!row.ids.empty()) {
        heading = row.of > 0 ? fmt::format("Packed row {} of {}", row.number, row.of) : "The packed row";
        about = fmt::format("{} tokens, {} without padding. ", row.ids.size(), row.real_tokens);
    }
    std::string choices;
    for (size_t i = 0; i < inspection.masks.size(); ++i) {
        const InspectedMask& mask = inspection.masks[i];
        const std::string name = mask.name.empty() ? fmt::format("mask {}", i + 1) : mask.name;
        choices += fmt::format("<option value=\"{}\">{}: {:.3g} % of all pairs visible</option>\n", i, escaped(name),
                               100 * mask.visible);
    }
    return fmt::format(
        "<section id=\"picture\">\n<h2>{}</h2>\n<p class=\"faint\">{}Keys run to the right, queries down. Wheel: zoom. "
        "Drag: move. Double click: everything.{}</p>\n"
        "<div class=\"tools\"><select id=\"mask\" aria-label=\"mask\">\n{}</select>\n"
        "<span class=\"pair\"><button id=\"show-exact\">exact</button><button id=\"show-tiles\">tiles</button></span>\n"
        "<span class=\"pair\"><button id=\"zoom-out\" title=\"zoom out (-)\">\xE2\x88\x92</button>"
        "<button id=\"zoom-in\" title=\"zoom in (+)\">+</button><button id=\"zoom-all\" title=\"everything (0)\">"
        "everything</button></span></div>\n"
        "<div id=\"stage\"><canvas id=\"base\" tabindex=\"0\" role=\"img\" aria-label=\"mask, a pixel for each pair of "
        "query and key\"></canvas><canvas id=\"over\"></canvas></div>\n{}</section>\n",
        heading, about, row.ids.empty() ? "" : " Click: the sample.", choices, picture_key());
}

std::string samples(const Inspection& inspection) {
    if (inspection.samples.empty()) return "";
    return "<section id=\"samples\">\n<h2>Samples</h2>\n"
           "<div class=\"tools\"><span class=\"pair\"><button id=\"previous\">previous</button>"
           "<button id=\"next\">next</button></span>\n"
           "<input id=\"filter\" type=\"search\" placeholder=\"filter by place or note\" "
           "aria-label=\"filter by place or note\"/><span class=\"faint\" id=\"matches\"></span></div>\n"
           "<ol id=\"list\"></ol>\n"
           "<ul class=\"key-list\">" +
           key("learned", "learned") + key("token", "not learned") + key("special", "control token") +
           key("shared-text", "shared with the sequence before") +
           "<li>\xE2\x86\xB5 line end</li></ul>\n<div id=\"sample\"></div>\n</section>\n";
}

std::string table(const std::vector<std::vector<std::string>>& lines, size_t numbers) {
    if (lines.empty()) return "";
    return html_table(lines.front(), {lines.begin() + 1, lines.end()}, numbers);
}

std::string lengths(const Inspection& inspection) {
    std::string text;
    const std::string of_samples = svg_of(inspection.lengths, "tokens of a sample") + table(inspection.length_table, 0);
    if (!of_samples.empty()) text += "<div>\n<h2>Lengths</h2>\n" + of_samples + "</div>\n";
    const std::string fill = table(inspection.fill_table, 1);
    if (!fill.empty()) text += "<div>\n<h2>Fill</h2>\n" + fill + "</div>\n";
    return text.empty() ? "" : "<section class=\"side\">\n" + text + "</section>\n";
}

}  // namespace

std::string inspection_page(const Inspection& inspection) {
    const std::string drawn = picture(inspection), listed = samples(inspection);
    std::string body = head(inspection) + notes(inspection);
    if (!drawn.empty() || !listed.empty())
        body += fmt::format("<div class=\"{}\">\n{}{}</div>\n",
                            drawn.empty() || listed.empty() ? "bench alone" : "bench", drawn, listed);
    body += lengths(inspection) + script_json(inspection_json(inspection));
    return html_page(inspection.title, body, {.style = inspection_style(), .script = inspection_script()});
}

}  // namespace colonnade
