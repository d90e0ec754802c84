#include "data/text/choose_template.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

using Pointer = std::shared_ptr<const ChatTemplate>;

const TextFolder::Template* named(const TextFolder& folder, const std::string& name) {
    const auto found = std::ranges::find(folder.templates, name, &TextFolder::Template::name);
    return found == folder.templates.end() ? nullptr : &*found;
}

Pointer of_folder(const TextFolder& folder, const TextFolder::Template& chosen, ChatTemplate::Settings settings) {
    const TextFolder::Template* with_tools = chosen.name == "default" ? named(folder, "tool_use") : nullptr;
    settings.of_model = true;
    const std::string name =
        folder.templates.size() == 1 ? chosen.file : fmt::format("{} ({})", chosen.file, chosen.name);
    return std::make_shared<const ChatTemplate>(name, chosen.source, with_tools ? with_tools->source : "",
                                                std::move(settings));
}

bool is_jinja(const std::string& text) {
    return text.find("{{") != text.npos || text.find("{%") != text.npos;
}

}  // namespace

Pointer choose_template(const TextFolder& folder, const std::string& choice, ChatTemplate::Settings settings) {
    const std::vector<std::string> built_in = chat_template_names();
    if (choice == own_template) {
        if (folder.templates.empty()) return ChatTemplate::built_in("chatml", std::move(settings));
        return of_folder(folder, folder.templates.front(), std::move(settings));
    }
    if (std::ranges::find(built_in, choice) != built_in.end())
        return ChatTemplate::built_in(choice, std::move(settings));
    if (const auto* own = named(folder, choice)) return of_folder(folder, *own, std::move(settings));
    if (is_jinja(choice)) return std::make_shared<const ChatTemplate>("in the config", choice, "", std::move(settings));
    std::error_code error;
    if (std::filesystem::is_regular_file(choice, error))
        return std::make_shared<const ChatTemplate>(choice, read_file(choice, limits::template_bytes), "",
                                                    std::move(settings));
    std::vector<std::string> own_names;
    for (const auto& own : folder.templates) own_names.push_back(own.name);
    fail(Exit::config,
         "chat_template '{:.200}': no such file; expected auto (the model's own), one of {}{}, a Jinja file, or Jinja "
         "text",
         choice, fmt::join(built_in, ", "),
         own_names.empty() ? "" : fmt::format(", a template of the model ({})", fmt::join(own_names, ", ")));
}

}  // namespace colonnade
