#include "train/log/run_id.h"

#include <random>
#include <string_view>

#include "engine/io/files.h"

namespace colonnade {
namespace {

constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz0123456789";

std::string path_in(const std::string& folder) {
    return folder + "/run-id.txt";
}

}  // namespace

std::string random_id(size_t length) {
    std::random_device random;
    std::string id;
    for (size_t i = 0; i < length; ++i) id += letters[random() % letters.size()];
    return id;
}

std::string kept_id(const std::string& folder, size_t length) {
    if (!path_exists(path_in(folder))) return "";
    const std::string id = read_file(path_in(folder), 2 * length);
    return id.size() == length && id.find_first_not_of(letters) == id.npos ? id : "";
}

void keep_id(const std::string& folder, const std::string& id) {
    make_folders(folder);
    write_file_atomically(path_in(folder), id);
}

std::string id_of_run(const std::string& folder, size_t length, bool resumed) {
    std::string id = resumed ? kept_id(folder, length) : "";
    if (id.empty()) keep_id(folder, id = random_id(length));
    return id;
}

}  // namespace colonnade
