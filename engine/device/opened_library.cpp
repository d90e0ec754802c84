#include "engine/device/opened_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>
#include <link.h>

#include <cstdlib>
#include <filesystem>

#include "engine/device/error.h"

namespace colonnade {
namespace {

/// The files that an entry of Source::files stands for. A pattern's files come last first: the newest version.
std::vector<std::string> files_of(std::string entry) {
    if (entry.starts_with('$')) {
        const size_t slash = entry.find('/');
        const char* const folder = std::getenv(entry.substr(1, slash - 1).c_str());
        if (!folder || !*folder) return {};
        entry.replace(0, slash, folder);
    }
    if (entry.find('*') == entry.npos) return {entry};
    glob_t found{};
    std::vector<std::string> files;
    if (glob(entry.c_str(), 0, nullptr, &found) == 0)
        for (size_t i = found.gl_pathc; i-- > 0;) files.emplace_back(found.gl_pathv[i]);
    globfree(&found);
    return files;
}

/// "libmpi.so.40", and in brackets what is wrong with it if it is there.
std::string attempt(const std::string& file, const std::string& error) {
    if (error == file + ": cannot open shared object file: No such file or directory") return file;
    return fmt::format("{} ({})", file, error.starts_with(file + ": ") ? error.substr(file.size() + 2) : error);
}

struct Register {
    std::mutex mutex;
    std::vector<OpenedFile> files;
};
Register& opened() {
    static Register all;
    return all;
}

}  // namespace

void OpenedLibrary::open() {
    std::vector<std::string> files;
    if (const char* const chosen = std::getenv(source_.variable.c_str()); chosen && *chosen)
        files = {chosen};
    else
        for (const std::string& entry : source_.files)
            for (const std::string& file : files_of(entry)) files.push_back(file);
    for (const std::string& file : files) {
        handle_ = dlopen(file.c_str(), RTLD_NOW | (source_.global ? RTLD_GLOBAL : RTLD_LOCAL));
        if (handle_) break;
        tried_ += (tried_.empty() ? "" : ", ") + attempt(file, dlerror());
    }
    if (!handle_) return;
    link_map* map = nullptr;
    dlinfo(handle_, RTLD_DI_LINKMAP, &map);
    std::error_code error;
    file_ = std::filesystem::canonical(map->l_name, error);
    if (error) file_ = map->l_name;
    const std::lock_guard lock(opened().mutex);
    opened().files.push_back({source_.name, file_});
}

bool OpenedLibrary::opens() {
    std::call_once(once_, [this] { open(); });
    return handle_ != nullptr;
}

void* OpenedLibrary::symbol(const char* name) {
    if (!opens()) {
        std::string here;
        for (const auto& [file, other] : source_.unusable)
            if (void* const handle = dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
                here += fmt::format("; {} ({}) is here, but this program cannot use it", other, file);
                dlclose(handle);
            }
        fail(Exit::config, "{} was not found{}; tried {}. {}, or set {} to the path of its file", source_.name, here,
             tried_.empty() ? "nothing" : tried_, source_.remedy, source_.variable);
    }
    if (void* const found = dlsym(handle_, name)) return found;
    fail(Exit::config, "{} has no '{}', so it is not the {} that this program expects. {}, or set {} to another file",
         file_, name, source_.name, source_.remedy, source_.variable);
}

std::vector<OpenedFile> opened_files() {
    const std::lock_guard lock(opened().mutex);
    return opened().files;
}

}  // namespace colonnade
