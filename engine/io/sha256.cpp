#include "engine/io/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    const bool ready = context_ && EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1;
    require(ready, "OpenSSL has no SHA-256");
}

Sha256::~Sha256() {
    EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_));
}

void Sha256::update(const void* data, size_t bytes) {
    require(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, bytes) == 1, "SHA-256 failed");
}

std::string Sha256::hex() {
    std::array<unsigned char, 32> digest{};
    require(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), nullptr) == 1, "SHA-256 failed");
    std::string text;
    for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
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

}  // namespace colonnade
