#pragma once
// SHA-256 as 64 hexadecimal digits, the same as sha256sum prints.

#include <string>
#include <string_view>

namespace colonnade {

std::string sha256(std::string_view bytes);
std::string sha256_file(const std::string& path);

/// Hashes in pieces.
class Sha256 {
  public:
    Sha256();
    ~Sha256();
    Sha256(const Sha256&) = delete;
    Sha256& operator=(const Sha256&) = delete;
    void update(const void* data, size_t bytes);
    std::string hex();  ///< finishes the hash; call it once

  private:
    void* context_;
};

}  // namespace colonnade
