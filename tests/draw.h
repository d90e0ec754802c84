#pragma once
// Random numbers one after the other.

#include "engine/philox.h"

namespace colonnade {

class Draw {
  public:
    explicit Draw(uint64_t seed) : philox_{seed, 0} {}
    int below(int n) { return static_cast<int>(philox_.below(count_++, static_cast<uint64_t>(n))); }

  private:
    Philox philox_;
    uint64_t count_ = 0;
};

}  // namespace colonnade
