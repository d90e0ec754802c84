#pragma once
// GpuTimer: measures intervals of a GPU's stream with CUDA events. The host does not wait in between: the work of one
// interval is launched while the previous one still runs.

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

    /// The work enqueued between the two calls is one interval.
    void start();
    void stop();
    /// Waits, then returns all intervals since construction, in order.
    std::vector<double> seconds();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace colonnade
