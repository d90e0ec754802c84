#include "engine/io/sha256.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <vector>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {

/// Without memory OpenSSL 3.0 crashes while it fetches an algorithm.
static void* required(void* memory, size_t bytes) {
    if (!memory && bytes > 0) end_without_memory("OpenSSL");
    return memory;
}

static EVP_MD_CTX* new_context() {
    [[maybe_unused]] static const int once = CRYPTO_set_mem_functions(
        [](size_t bytes, const char*, int) { return required(std::malloc(bytes), bytes); },
        [](void* old, size_t bytes, const char*, int) { return required(std::realloc(old, bytes), bytes); },
        [](void* memory, const char*, int) { std::free(memory); });
    return EVP_MD_CTX_new();
}

HashInPieces::HashInPieces(const char* algorithm) : context_(new_context()) {
    const EVP_MD* method = EVP_get_digestbyname(algorithm);
    const bool ready =
        context_ && method && EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), method, nullptr) == 1;
    require(ready, "OpenSSL has no {}", algorithm);
}

HashInPieces::~HashInPieces() {
    EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_));
}

void HashInPieces::update(const void* data, size_t bytes) {
    require(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, bytes) == 1, "the hash failed");
}

std::string HashInPieces::hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned bytes = 0;
    require(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &bytes) == 1, "the hash failed");
    std::string text;
    for (unsigned i = 0; i < bytes; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
}

std::string sha256(std::string_view bytes) {
    Sha256 hash;
    hash.update(bytes.data(), bytes.size());
    return hash.hex();
}

std::string sha256_file(const std::string& path) {
    InputFile file(path);
    Sha256 hash;
    std::string piece(size_t{1} << 20, '\0');
    while (const size_t got = file.read(piece.data(), piece.size())) hash.update(piece.data(), got);
    return hash.hex();
}

template <typename T>
static std::string hash_as_bf16(const T* values, int64_t count) {
    static_assert(std::endian::native == std::endian::little, "bytes of bf16 are hashed as they are in memory");
    constexpr int64_t most = 4096;  // stays in the nearest cache
    Sha256 hash;
    uint16_t bits[most];
    for (int64_t begin = 0; begin < count; begin += most) {
        const int64_t n = std::min(most, count - begin);
        for (int64_t i = 0; i < n; ++i) bits[i] = bf16_from_float(static_cast<float>(values[begin + i]));
        hash.update(bits, static_cast<size_t>(n) * sizeof bits[0]);
    }
    return hash.hex();
}

std::string sha256_as_bf16(const Tensor& values) {
    constexpr int64_t piece = 1 << 20;
    const int64_t count = values.numel(), pieces = (count + piece - 1) / piece;
    std::vector<std::string> hashes(static_cast<size_t>(pieces));
    dispatch_float(values.dtype, [&]<typename T>() {
        const T* const data = values.as<T>();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < pieces; ++i)
            hashes[static_cast<size_t>(i)] = hash_as_bf16(data + i * piece, std::min(piece, count - i * piece));
    });
    std::string all;
    for (const std::string& hash : hashes) all += hash;
    return sha256(all);
}

}  // namespace colonnade
