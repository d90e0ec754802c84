#include "tests/fuzz/formats.h"

#include <algorithm>
#include <filesystem>

#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {

namespace fs = std::filesystem;

std::vector<std::string> golden_contents(const std::string& folder, const std::string& suffix) {
    std::vector<std::string> paths, contents;
    for (const auto& entry : fs::recursive_directory_iterator(golden_file(folder)))
        if (entry.path().string().ends_with(suffix) && entry.file_size() <= 1 << 16) paths.push_back(entry.path());
    std::ranges::sort(paths);
    for (const std::string& path : paths) contents.push_back(slurp(path));
    return contents;
}

std::string mutated(const Format& format, const std::vector<std::string>& pool, size_t chosen, Random& random) {
    const std::string& bytes = pool[chosen];
    const std::string& other = pool[below(random, pool.size())];
    const size_t kind = below(random, 4);
    if (format.structure && kind < 2) try {
            return format.structure(bytes, other, random);
        } catch (const std::exception&) {  // the bytes are not of the format
        }
    if (!format.words.empty() && (kind == 2 || !format.structure))
        return mutate_words(bytes, other, format.words, random);
    return mutate_bytes(bytes, other, random);
}

}  // namespace colonnade
