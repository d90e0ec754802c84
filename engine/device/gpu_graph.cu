#include "engine/device/gpu.cuh"
#include "engine/device/gpu_graph.h"

namespace colonnade {

struct GpuGraph::State {
    cudaStream_t stream = nullptr;
    cudaGraphExec_t graph = nullptr;
    ~State() {
        if (graph) cudaGraphExecDestroy(graph);
    }
};

GpuGraph::GpuGraph(Gpu& gpu, const std::function<void()>& work) : state_(std::make_unique<State>()) {
    cudaStream_t const stream = state_->stream = gpu.stream();
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t recorded = nullptr;
    try {
        work();
    } catch (...) {
        cudaStreamEndCapture(stream, &recorded);  // else the stream stays in this mode
        if (recorded) cudaGraphDestroy(recorded);
        throw;
    }
    check_cuda(cudaStreamEndCapture(stream, &recorded), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&state_->graph, recorded, 0);
    cudaGraphDestroy(recorded);
    check_cuda(status, "cudaGraphInstantiate");
}
GpuGraph::~GpuGraph() = default;

void GpuGraph::enqueue() {
    check_cuda(cudaGraphLaunch(state_->graph, state_->stream), "cudaGraphLaunch");
}

}  // namespace colonnade
