#pragma once
// A sequence of random integers, for tests that try many cases.

#include "engine/device/philox.h"

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
