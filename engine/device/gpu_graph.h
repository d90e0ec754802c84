#pragma once
// GpuGraph: work that was recorded once from a Gpu's stream and is enqueued again with one call, which costs the host a
// few microseconds whatever the number of kernels. Kernels see the same addresses each time.

#include <functional>
#include <memory>

#include "engine/device/gpu.h"

namespace colonnade {

class GpuGraph {
  public:
    /// Records what `work` enqueues on the Gpu's stream, without running it. `work` must not upload, download, wait or
    /// allocate, and every kernel in it must have run before, so that its code is loaded.
    GpuGraph(Gpu& gpu, const std::function<void()>& work);
    ~GpuGraph();
    GpuGraph(const GpuGraph&) = delete;
    GpuGraph& operator=(const GpuGraph&) = delete;
    void enqueue();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace colonnade
