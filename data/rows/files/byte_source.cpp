#include "data/rows/files/byte_source.h"

#include <algorithm>
#include <cstring>

#include "data/rows/files/inflater.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

using namespace std::string_view_literals;

constexpr size_t head_bytes = 512, in_bytes = size_t{128} << 10;

/// Kinds of files that are not read, by their first bytes.
constexpr struct {
    std::string_view magic;
    const char *kind, *way_out;
} foreign[] = {
    {"\xFF\xFE\0\0"sv, "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8 OLD > NEW"},
    {"\xFF\xFE"sv, "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"},
    {"\xFE\xFF"sv, "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"},
    {"{\0"sv, "UTF-16 text", "convert it: iconv -f UTF-16LE -t UTF-8 OLD > NEW"},
    {"[\0"sv, "UTF-16 text", "convert it: iconv -f UTF-16LE -t UTF-8 OLD > NEW"},
    {"\0{"sv, "UTF-16 text", "convert it: iconv -f UTF-16BE -t UTF-8 OLD > NEW"},
    {"\0["sv, "UTF-16 text", "convert it: iconv -f UTF-16BE -t UTF-8 OLD > NEW"},
    {"PARE"sv, "an encrypted Parquet file", "write it without encryption"},
    {"ARROW1"sv, "an Arrow file", "write it as Parquet or JSON lines (datasets: to_parquet, to_json)"},
    {"\xFF\xFF\xFF\xFF"sv, "an Arrow stream", "write it as Parquet or JSON lines (datasets: to_parquet, to_json)"},
    {"PK\3\4"sv, "a zip archive", "unpack it"},
    {"BZh"sv, "bzip2 data", "unpack it, or compress with gzip or zstd"},
    {"\xFD\x37zXZ\0"sv, "xz data", "unpack it, or compress with gzip or zstd"},
    {"\x04\x22\x4D\x18"sv, "lz4 data", "unpack it, or compress with gzip or zstd"},
    {"7z\xBC\xAF\x27\x1C"sv, "a 7z archive", "unpack it"},
    {"SQLite format 3\0"sv, "an SQLite database", "write its rows as JSON lines"},
    {"Obj\1"sv, "an Avro file", "write its rows as JSON lines"},
    {"ORC"sv, "an ORC file", "write its rows as Parquet or JSON lines"},
    {"version https://git-lfs"sv, "a Git LFS pointer, not the data itself", "get the data: git lfs pull"},
};

bool is_gzip(std::string_view head) {
    return head.starts_with("\x1F\x8B");
}
bool is_zstd(std::string_view head) {
    const bool skippable =
        head.size() >= 4 && (static_cast<unsigned char>(head[0]) & 0xF0) == 0x50 && head.substr(1, 3) == "\x2A\x4D\x18";
    return head.starts_with("\x28\xB5\x2F\xFD") || skippable;
}

/// `inside`: " inside gzip", or nothing.
void refuse_foreign(const std::string& path, std::string_view head, const std::string& inside) {
    for (const auto& [magic, kind, way_out] : foreign)
        if (head.starts_with(magic)) fail(Exit::data, "{}: {}{}, which is not read; {}", path, kind, inside, way_out);
    if (head.size() >= 262 && head.substr(257, 5) == "ustar")
        fail(Exit::data, "{}: a tar archive{}, which is not read; unpack it", path, inside);
    if (inside.empty()) return;
    if (head.starts_with("PAR1"))
        fail(Exit::data, "{}: a Parquet file{}, which is not read; unpack it (Parquet has compression of its own)",
             path, inside);
    if (is_gzip(head) || is_zstd(head)) fail(Exit::data, "{}: compressed twice; unpack it once", path);
}

}  // namespace

ByteSource::ByteSource(const std::string& path) : file_(path) {
    fill_head();
    if (is_gzip(head_))
        inflater_ = gzip_inflater();
    else if (is_zstd(head_))
        inflater_ = zstd_inflater();
    refuse_foreign(path, head_, "");
    if (!inflater_) return;
    in_ = std::move(head_);
    fill_head();
    refuse_foreign(path, head_, fmt::format(" inside {}", inflater_->name()));
}

void ByteSource::fill_head() {
    std::string head(head_bytes, '\0');
    size_t filled = 0;
    while (filled < head.size()) {
        const size_t got = inflater_ ? inflate(head.data() + filled, head.size() - filled, "")
                                     : read_file(head.data() + filled, head.size() - filled);
        if (got == 0) break;
        filled += got;
    }
    head.resize(filled);
    head_ = std::move(head);
}

size_t ByteSource::read(char* into, size_t bytes, const std::string& after) {
    if (head_read_ < head_.size()) {
        const size_t taken = std::min(bytes, head_.size() - head_read_);
        std::memcpy(into, head_.data() + head_read_, taken);
        head_read_ += taken;
        return taken;
    }
    return inflater_ ? inflate(into, bytes, after) : read_file(into, bytes);
}

size_t ByteSource::read_file(char* into, size_t bytes) {
    const size_t got = file_.read(into, bytes);
    file_bytes_ += got;
    return got;
}

size_t ByteSource::inflate(char* into, size_t bytes, const std::string& after) {
    for (;;) {
        if (in_begin_ == in_.size() && !end_of_file_) {
            in_.resize(in_bytes);
            in_.resize(read_file(in_.data(), in_.size()));
            in_begin_ = 0;
            end_of_file_ = in_.empty();
        }
        if (end_of_file_ && inflater_->complete()) return 0;
        // At the end of the file the decompressor may still hold back bytes.
        const auto [consumed, produced, error] = inflater_->step(std::string_view(in_).substr(in_begin_), into, bytes);
        in_begin_ += consumed;
        if (error) fail(Exit::data, "{}: unreadable {} data{}: {}", path(), inflater_->name(), after, error);
        if (produced > 0) return produced;
        if (end_of_file_ && !inflater_->complete())
            fail(Exit::data, "{}: the {} data ends too early{}: the file is incomplete", path(), inflater_->name(),
                 after);
    }
}

double ByteSource::progress(size_t unused) const {
    if (file_.size() == 0) return 1.0;
    // Of an archive it is not known how many bytes of the file these are.
    const auto used = static_cast<double>(file_bytes_) - (inflater_ ? 0.0 : static_cast<double>(unused));
    return used / static_cast<double>(file_.size());
}

}  // namespace colonnade
