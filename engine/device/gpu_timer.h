#pragma once
// GpuTimer: how long stretches of a GPU's stream take, by CUDA events. The host does not wait in between, so that the
// work of one stretch is launched while the one before it runs.

#include <memory>
#include <vector>

#include "engine/device/gpu.h"

namespace colonnade {

class GpuTimer {
  public:
    explicit GpuTimer(Gpu& gpu);
    ~GpuTimer();
    GpuTimer(const GpuTimer&) = delete;
    GpuTimer& operator=(const GpuTimer&) = delete;

    /// What is enqueued between the two calls is one stretch.
    void start();
    void stop();
    /// Waits; the stretches since the timer was made, in order.
    std::vector<double> seconds();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace colonnade
