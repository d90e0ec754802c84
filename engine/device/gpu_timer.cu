#include "engine/device/gpu_timer.h"

#include "engine/device/gpu.cuh"

namespace colonnade {

struct GpuTimer::State {
    cudaStream_t stream = nullptr;
    std::vector<cudaEvent_t> events;  ///< start, stop, start, ...

    void record() {
        cudaEvent_t event = nullptr;
        check_cuda(cudaEventCreate(&event), "cudaEventCreate");
        events.push_back(event);
        check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
    }
    ~State() {
        for (const cudaEvent_t event : events) cudaEventDestroy(event);
    }
};

GpuTimer::GpuTimer(Gpu& gpu) : state_(std::make_unique<State>()) {
    state_->stream = gpu.stream();
}
GpuTimer::~GpuTimer() = default;

void GpuTimer::start() {
    require(state_->events.size() % 2 == 0, "GpuTimer: started twice");
    state_->record();
}

void GpuTimer::stop() {
    require(state_->events.size() % 2 == 1, "GpuTimer: stopped but not started");
    state_->record();
}

std::vector<double> GpuTimer::seconds() {
    const auto& events = state_->events;
    std::vector<double> seconds;
    for (size_t i = 0; i + 1 < events.size(); i += 2) {
        check_cuda(cudaEventSynchronize(events[i + 1]), "a kernel");
        float milliseconds = 0;
        check_cuda(cudaEventElapsedTime(&milliseconds, events[i], events[i + 1]), "cudaEventElapsedTime");
        seconds.push_back(milliseconds * 1e-3);
    }
    return seconds;
}

}  // namespace colonnade
