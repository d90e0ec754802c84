#include "engine/device/gpu_graph.h"
#include "engine/device/without_cuda.h"

namespace colonnade {

struct GpuGraph::State {};
GpuGraph::GpuGraph(Gpu&, const std::function<void()>&) {
    no_cuda();
}
GpuGraph::~GpuGraph() = default;
void GpuGraph::enqueue() {
    no_cuda();
}

}  // namespace colonnade
