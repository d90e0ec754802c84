#pragma once
// A page in a headless browser, with a script of the test in it.

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/program.h"

namespace colonnade {

/// The path of Chromium or a relative of it; empty if none is in PATH.
inline std::string browser() {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
        if (const std::string path = program_in_path(name); !path.empty()) return path;
    return "";
}

/// Opens a copy of `page` in `folder` at `fragment`, runs `script` behind the page's own, and returns what it left in
/// `result`, with errors of all scripts in result.errors. The window is 1400 x 1000 pixels. Frames are drawn at once.
inline Json run_in_browser(const std::string& folder, const std::string& page, const std::string& script,
                           const std::string& fragment = "") {
    const std::string before =
        "<script>const result = {errors: []}; window.onerror = text => { result.errors.push(text); };"
        "window.requestAnimationFrame = draw => { draw(); };</script>";
    const std::string behind =
        "<script>\"use strict\";\nconst wait = () => new Promise(then => setTimeout(then, 200));\n(async () => {\n" +
        script +
        "})().catch(error => { result.errors.push(String(error)); }).then(() => {\n"
        "const text = document.createElement(\"pre\"); text.id = \"result\";\n"
        "text.textContent = encodeURIComponent(JSON.stringify(result)); document.body.append(text); });</script>";
    std::string copy = page;
    copy.insert(copy.find("<body>") + 6, before);
    copy.insert(copy.rfind("</body>"), behind);
    spill(folder + "/page.html", copy);
    const Program::Result shown =
        run(browser(), {"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                        "--log-level=3", "--window-size=1400,1000", "--user-data-dir=" + folder + "/browser",
                        "--virtual-time-budget=60000", "--dump-dom", "file://" + folder + "/page.html" + fragment});
    const std::string mark = "<pre id=\"result\">";
    const size_t begin = shown.out.rfind(mark);
    if (begin == std::string::npos) {
        ADD_FAILURE() << "no result from " << browser() << ", exit code " << shown.exit << "\n" << shown.err;
        return {};
    }
    std::string text;
    for (size_t at = begin + mark.size(); shown.out[at] != '<'; ++at) {
        if (shown.out[at] != '%') {
            text += shown.out[at];
            continue;
        }
        text += static_cast<char>(std::stoi(shown.out.substr(at + 1, 2), nullptr, 16));
        at += 2;
    }
    return parse_json(text, "the browser's result");
}

}  // namespace colonnade
