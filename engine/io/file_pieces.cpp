#include "engine/io/file_pieces.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

#include "engine/io/sha256.h"

namespace colonnade {
namespace {

constexpr uint64_t piece_limit = uint64_t{32} << 20;

/// A stretch of a file, and the region that it belongs to; null: none.
struct Stretch {
    uint64_t begin, bytes;
    const FileRegion* region;
};

uint64_t stored_bytes(const Tensor& data) {
    return static_cast<uint64_t>(data.numel()) * bytes_of(sum_dtype(data.dtype));
}

void cut(std::vector<Stretch>& into, Stretch whole) {
    while (whole.bytes > 0) {
        const uint64_t bytes = std::min(whole.bytes, piece_limit);
        into.push_back({whole.begin, bytes, whole.region});
        whole.begin += bytes;
        whole.bytes -= bytes;
    }
}

/// The bytes of a stretch of a region, as the file stores them.
const void* stored(const Stretch& s, std::vector<float>& wide) {
    const Tensor& data = s.region->data;
    const uint64_t at = s.begin - s.region->begin;
    if (data.dtype != DType::bf16) return static_cast<const char*>(data.data) + at;
    const uint16_t* narrow = static_cast<const uint16_t*>(data.data) + at / sizeof(float);
    wide.resize(s.bytes / sizeof(float));
    std::transform(narrow, narrow + wide.size(), wide.begin(), float_from_bf16);
    return wide.data();
}

std::string hash_range(const InputFile& file, uint64_t begin, uint64_t bytes) {
    Sha256 hash;
    std::vector<char> buffer(std::min(bytes, uint64_t{1} << 20));
    while (bytes > 0) {
        const uint64_t count = std::min<uint64_t>(bytes, buffer.size());
        file.read_at(begin, buffer.data(), count);
        hash.update(buffer.data(), count);
        begin += count;
        bytes -= count;
    }
    return hash.hex();
}

}  // namespace

int all_cores() {
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 16);
}

void in_parallel(size_t count, int threads, const std::function<void(size_t)>& body) {
    std::atomic<size_t> next = 0;
    std::mutex lock;
    std::exception_ptr error;
    const auto work = [&] {
        try {
            for (size_t i; (i = next++) < count;) body(i);
        } catch (...) {
            next = count;
            const std::lock_guard guard(lock);
            if (!error) error = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    try {
        for (size_t i = 1; i < std::min(count, static_cast<size_t>(threads)); ++i) others.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads: those that exist do all of it
    }
    work();
    for (std::thread& thread : others) thread.join();
    if (error) std::rethrow_exception(error);
}

void FilledFile::fill(const FileRegion& region) {
    require(region.data.contiguous() && region.data.device == Device::cpu, "{}: written from {}", path_, region.data);
    std::vector<Stretch> stretches;
    cut(stretches, {region.begin, stored_bytes(region.data), &region});
    const size_t before = done_.size();
    done_.resize(before + stretches.size());
    in_parallel(stretches.size(), threads_, [&](size_t i) {
        const Stretch& s = stretches[i];
        std::vector<float> wide;
        const void* const bytes = stored(s, wide);
        file_.write_at(s.begin, bytes, s.bytes);
        Sha256 hash;
        hash.update(bytes, s.bytes);
        done_[before + i] = {s.begin, {s.bytes, hash.hex()}};
    });
}

std::vector<FilePiece> FilledFile::finish() {
    const InputFile whole(path_);
    std::ranges::sort(done_, {}, &Done::begin);
    std::vector<Stretch> others;
    uint64_t at = 0;
    for (const Done& d : done_) {
        require(d.begin >= at, "{}: byte {} is written twice", path_, d.begin);
        cut(others, {at, d.begin - at, nullptr});
        at = d.begin + d.piece.bytes;
    }
    cut(others, {at, whole.size() - at, nullptr});
    const size_t before = done_.size();
    done_.resize(before + others.size());
    in_parallel(others.size(), threads_, [&](size_t i) {
        const Stretch& s = others[i];
        done_[before + i] = {s.begin, {s.bytes, hash_range(whole, s.begin, s.bytes)}};
    });
    file_.close();
    std::ranges::sort(done_, {}, &Done::begin);
    std::vector<FilePiece> pieces;
    for (Done& d : done_) pieces.push_back(std::move(d.piece));
    return pieces;
}

std::vector<FilePiece> hash_pieces(const std::string& path, int threads) {
    const InputFile file(path);
    std::vector<Stretch> stretches;
    cut(stretches, {0, file.size(), nullptr});
    std::vector<FilePiece> pieces(stretches.size());
    in_parallel(pieces.size(), threads, [&](size_t i) {
        pieces[i] = {stretches[i].bytes, hash_range(file, stretches[i].begin, stretches[i].bytes)};
    });
    return pieces;
}

void check_pieces(const std::string& path, const std::vector<FilePiece>& pieces, const std::string& advice) {
    const InputFile file(path);
    std::vector<uint64_t> begins;
    uint64_t end = 0;
    for (const FilePiece& piece : pieces) {
        begins.push_back(end);
        if (__builtin_add_overflow(end, piece.bytes, &end) || end > file.size()) break;
    }
    if (end != file.size() || begins.size() != pieces.size())
        fail(Exit::data, "{}: {} bytes, but its pieces have {} or more; {}", path, file.size(), end, advice);
    in_parallel(pieces.size(), all_cores(), [&](size_t i) {
        const std::string found = hash_range(file, begins[i], pieces[i].bytes);
        if (found != pieces[i].sha256)
            fail(Exit::data, "{}: bytes {} to {} have SHA-256 {}, expected {}; {}", path, begins[i],
                 begins[i] + pieces[i].bytes, found, pieces[i].sha256, advice);
    });
}

void read_regions(const std::string& path, const std::vector<FileRegion>& regions) {
    const InputFile file(path);
    std::vector<Stretch> stretches;
    for (const FileRegion& region : regions) {
        require(region.data.contiguous() && region.data.device == Device::cpu, "{}: read into {}", path, region.data);
        cut(stretches, {region.begin, region.data.bytes(), &region});
    }
    in_parallel(stretches.size(), all_cores(), [&](size_t i) {
        const Stretch& s = stretches[i];
        file.read_at(s.begin, static_cast<char*>(s.region->data.data) + (s.begin - s.region->begin), s.bytes);
    });
}

}  // namespace colonnade
