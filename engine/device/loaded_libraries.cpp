#include "engine/device/loaded_libraries.h"

#include <link.h>

namespace colonnade {

std::vector<std::filesystem::path> loaded_libraries() {
    std::vector<std::filesystem::path> files;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* all) {
            if (!info->dlpi_name || !*info->dlpi_name) return 0;  // the program itself
            std::error_code error;
            std::filesystem::path file = std::filesystem::canonical(info->dlpi_name, error);
            if (!error) static_cast<std::vector<std::filesystem::path>*>(all)->push_back(std::move(file));
            return 0;
        },
        &files);
    return files;
}

}  // namespace colonnade
