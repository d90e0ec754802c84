#include "engine/device/loaded_libraries.h"

#include <dlfcn.h>
#include <link.h>

#include <filesystem>

namespace colonnade {

std::vector<std::string> loaded_libraries() {
    std::vector<std::string> names;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* all) {
            if (!info->dlpi_name || !*info->dlpi_name) return 0;  // the program itself
            std::error_code error;
            const std::filesystem::path file = std::filesystem::canonical(info->dlpi_name, error);
            if (!error) static_cast<std::vector<std::string>*>(all)->push_back(file.filename());
            return 0;
        },
        &names);
    return names;
}

void* loaded_function(const char* name) {
    return dlsym(RTLD_DEFAULT, name);
}

}  // namespace colonnade
