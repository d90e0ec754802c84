#include "engine/io/own_file.h"

#include <algorithm>
#include <filesystem>

#include "engine/device/error.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

bool is_hash(const std::string& name) {
    constexpr size_t shortest = 30;  // an MD5 sum whose first byte is the name of a folder
    return name.size() >= shortest && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool lies_in(const fs::path& folder, const fs::path& file) {
    const auto [end, rest] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
    return end == folder.end();
}

}  // namespace

const std::string& own_file(const std::string& folder, const std::string& file) {
    std::error_code error;
    const fs::path home = fs::canonical(folder, error);
    if (error) return file;
    const fs::path target = fs::canonical(file, error);
    if (error || lies_in(home, target)) return file;
    const std::string name = target.filename().string();
    if (is_hash(name) || name == fs::path(file).filename().string()) return file;
    fail(Exit::data,
         "{}: is a symbolic link to {}, which lies outside of the folder and has another name; copy it into the folder "
         "if it belongs to the model",
         file, target.string());
}

}  // namespace colonnade
