#pragma once
// SHA-256 as 64 hexadecimal digits, the same as sha256sum prints.

#include <string>
#include <string_view>

#include "engine/device/tensor.h"

namespace colonnade {

std::string sha256(std::string_view bytes);
std::string sha256_file(const std::string& path);
/// Of numbers (f32 or f64, in host memory) rounded to bf16: over the hashes of pieces, which threads compute in parallel.
std::string sha256_as_bf16(const Tensor& values);

/// Hashes in pieces.
class HashInPieces {
  public:
    HashInPieces(const HashInPieces&) = delete;
    HashInPieces& operator=(const HashInPieces&) = delete;
    ~HashInPieces();
    void update(const void* data, size_t bytes);
    std::string hex();  ///< finishes the hash; call it once

  protected:
    explicit HashInPieces(const char* algorithm);

  private:
    void* context_;
};
class Sha256 : public HashInPieces {
  public:
    Sha256() : HashInPieces("SHA256") {}
};
/// Not for anything that an attacker could profit from: it names the small files of git.
class Sha1 : public HashInPieces {
  public:
    Sha1() : HashInPieces("SHA1") {}
};

}  // namespace colonnade
