#include <cstring>
#include <vector>

#include "engine/device/arena.h"
#include "engine/device/gpu.cuh"
#include "engine/device/gpu_state.cuh"
#include "engine/device/host_transfers.h"
#include "engine/device/human_units.h"
#include "engine/device/used_memory.h"

namespace colonnade {

void check_cuda(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    const char* text = cudaGetErrorString(status);
    if (status == cudaErrorMemoryAllocation) {
        size_t available = 0, total = 0;
        cudaMemGetInfo(&available, &total);
        fail(Exit::memory, "not enough GPU memory: {}: {}; {} of {} available", what, text, human_bytes(available),
             human_bytes(total));
    }
    fail(Exit::peer, "the GPU failed: {}: {}", what, text);
}

size_t available_gpu_memory() {
    size_t available = 0, total = 0;
    check_cuda(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    return available;
}

size_t used_gpu_memory() {
    size_t available = 0, total = 0;
    check_cuda(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    return total - available;
}

std::shared_ptr<void> allocate_on_gpu(size_t bytes) {
    size_t available = 0, total = 0;
    check_cuda(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    void* memory = nullptr;
    const cudaError_t status =
        bytes > available ? cudaErrorMemoryAllocation : cudaMalloc(&memory, std::max<size_t>(bytes, 1));
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        fail(Exit::memory, "not enough GPU memory: {} requested, {} of {} available", human_bytes(bytes),
             human_bytes(available), human_bytes(total));
    }
    check_cuda(status, "cudaMalloc");
    std::shared_ptr<void> owner(memory, [](void* p) { cudaFree(p); });
    check_cuda(cudaMemset(memory, 0, bytes), "cudaMemset");
    // The streams that will use the memory do not wait for the default one.
    check_cuda(cudaDeviceSynchronize(), "cudaMemset");
    return owner;
}

std::shared_ptr<void> pinned(std::shared_ptr<void> memory, size_t bytes) {
    if (bytes == 0) return memory;
    const cudaError_t status = cudaHostRegister(memory.get(), bytes, cudaHostRegisterPortable);
    if (status != cudaSuccess) {
        cudaGetLastError();
        fail(Exit::memory, "cannot pin {} of host memory: {}", human_bytes(bytes), cudaGetErrorString(status));
    }
    void* const address = memory.get();
    return std::shared_ptr<void>(address, [memory = std::move(memory)](void* p) { cudaHostUnregister(p); });
}

namespace {

/// Properties of all devices, asked for once: a call of cudaGetDeviceProperties takes longer than to enqueue a kernel.
const std::vector<cudaDeviceProp>& all_properties() {
    static const std::vector<cudaDeviceProp> all = [] {
        int count = 0;
        check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
        std::vector<cudaDeviceProp> found(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i)
            check_cuda(cudaGetDeviceProperties(&found[static_cast<size_t>(i)], i), "cudaGetDeviceProperties");
        return found;
    }();
    return all;
}

const cudaDeviceProp& properties_of(int index) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || index < 0 || index >= count)
        fail(Exit::config, "CUDA device {} does not exist ({} found{}{})", index, count,
             status == cudaSuccess ? "" : ": ", status == cudaSuccess ? "" : cudaGetErrorString(status));
    const cudaDeviceProp& properties = all_properties()[static_cast<size_t>(index)];
    if (properties.major < 8)
        fail(Exit::config, "CUDA device {} ({}) is sm_{}{}: the kernels need sm_80 or newer", index, properties.name,
             properties.major, properties.minor);
    return properties;
}

}  // namespace

// The host writes one half while the device copies from the other. A half is written again only when its copies are
// done.
void Gpu::State::Staging::open() {
    if (memory) return;
    check_cuda(cudaMallocHost(reinterpret_cast<void**>(&memory), 2 * half), "cudaMallocHost");
    for (cudaEvent_t& event : read)
        check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
}

Gpu::State::Staging::~Staging() {
    for (cudaEvent_t event : read)
        if (event) cudaEventDestroy(event);
    if (memory) cudaFreeHost(memory);
}

char* Gpu::State::Staging::reserve(size_t bytes, cudaStream_t stream) {
    open();
    if (used + bytes > half) {
        check_cuda(cudaEventRecord(read[current], stream), "cudaEventRecord");
        current = 1 - current;
        check_cuda(cudaEventSynchronize(read[current]), "an upload");
        used = 0;
    }
    char* place = memory + static_cast<size_t>(current) * half + used;
    used += (bytes + 255) / 256 * 256;
    return place;
}

Gpu::Gpu(int index, CUstream_st* stream) : state_(std::make_unique<State>()) {
    State& s = *state_;
    const cudaDeviceProp& properties = properties_of(index);
    s.name = properties.name;
    s.compute_capability = properties.major * 10 + properties.minor;
    s.multiprocessors = properties.multiProcessorCount;
    s.stream = stream;
    check_cuda(cudaSetDevice(index), "cudaSetDevice");
}

Gpu::~Gpu() = default;

Gpu::State::~State() {
    // The stream's work may use what is freed here.
    if (owns_stream || staging.memory || products) cudaStreamSynchronize(stream);
    for (const Phase& p : phases) cudaEventDestroy(p.begin), cudaEventDestroy(p.end);
    if (owns_stream) cudaStreamDestroy(stream);
}

CUstream_st* Gpu::stream() const {
    return state_->stream;
}
const std::string& Gpu::name() const {
    return state_->name;
}
int Gpu::compute_capability() const {
    return state_->compute_capability;
}
bool Gpu::runs_hopper_kernels() const {
#ifdef COLONNADE_HAS_HOPPER
    return state_->compute_capability == 90;
#else
    return false;
#endif
}
int Gpu::multiprocessors() const {
    return state_->multiprocessors;
}

void Gpu::upload(const Tensor& to, const std::function<void(void*, int64_t, int64_t)>& fill) {
    require(to.device == Device::cuda && to.contiguous(), "upload into {} on {}", to, to.device);
    const size_t element = bytes_of(to.dtype);
    const auto piece = static_cast<int64_t>(State::Staging::half / element);
    for (int64_t first = 0; first < to.numel(); first += piece) {
        const int64_t count = std::min(piece, to.numel() - first);
        const size_t bytes = static_cast<size_t>(count) * element;
        char* place = state_->staging.reserve(bytes, state_->stream);
        fill(place, first, count);
        check_cuda(cudaMemcpyAsync(static_cast<char*>(to.data) + static_cast<size_t>(first) * element, place, bytes,
                                   cudaMemcpyHostToDevice, state_->stream),
                   "an upload");
    }
}

void Gpu::upload(const Tensor& to, const void* from) {
    const size_t element = bytes_of(to.dtype);
    upload(to, [&](void* out, int64_t first, int64_t count) {
        const auto bytes = count * static_cast<int64_t>(element);
        void* const source = static_cast<char*>(const_cast<void*>(from)) + static_cast<size_t>(first) * element;
        copy_host_memory(Tensor(out, DType::u8, {bytes}), Tensor(source, DType::u8, {bytes}));
    });
}

void Gpu::download(void* to, const Tensor& from) {
    require(from.device == Device::cuda && from.contiguous(), "download of {} on {}", from, from.device);
    const size_t bytes = from.bytes();
    for (size_t first = 0; first < bytes; first += State::Staging::half) {
        const size_t count = std::min(State::Staging::half, bytes - first);
        char* place = state_->staging.reserve(count, state_->stream);
        check_cuda(cudaMemcpyAsync(place, static_cast<const char*>(from.data) + first, count, cudaMemcpyDeviceToHost,
                                   state_->stream),
                   "a download");
        synchronize();
        std::memcpy(static_cast<char*>(to) + first, place, count);
    }
    synchronize();
}

void Gpu::zero(const Tensor& tensor) {
    require(tensor.contiguous(), "zero of {}", tensor);
    check_cuda(cudaMemsetAsync(tensor.data, 0, tensor.bytes(), state_->stream), "cudaMemsetAsync");
}

void Gpu::copy(const Tensor& to, const Tensor& from) {
    require(to.contiguous() && from.contiguous() && to.bytes() == from.bytes(), "copy of {} to {}", from, to);
    check_cuda(cudaMemcpyAsync(to.data, from.data, to.bytes(), cudaMemcpyDeviceToDevice, state_->stream), "a copy");
}

void Gpu::synchronize() {
    check_cuda(cudaStreamSynchronize(state_->stream), "a kernel");
}

void Gpu::begin_phase(const char* name) {
    State& s = *state_;
    if (s.open_phases == s.phases.size()) {
        State::Phase& p = s.phases.emplace_back();
        check_cuda(cudaEventCreate(&p.begin), "cudaEventCreate");
        check_cuda(cudaEventCreate(&p.end), "cudaEventCreate");
    }
    s.phases[s.open_phases].name = name;
    check_cuda(cudaEventRecord(s.phases[s.open_phases].begin, s.stream), "cudaEventRecord");
}

void Gpu::end_phase() {
    State& s = *state_;
    // Unchecked, because a destructor calls this: an error shows at the next wait.
    cudaEventRecord(s.phases[s.open_phases++].end, s.stream);
}

void Gpu::collect_phases(Profile& profile) {
    State& s = *state_;
    synchronize();
    for (size_t i = 0; i < s.open_phases; ++i) {
        float milliseconds = 0;
        check_cuda(cudaEventElapsedTime(&milliseconds, s.phases[i].begin, s.phases[i].end), "cudaEventElapsedTime");
        profile.add(s.phases[i].name, milliseconds * 1e-3);
    }
    s.open_phases = 0;
}

CurrentDevice::CurrentDevice() {
    if (cudaGetDevice(&index_) == cudaSuccess) return;
    cudaGetLastError();  // without a device there is none to set back; the next call reports it
    index_ = -1;
}
CurrentDevice::~CurrentDevice() {
    if (index_ >= 0) cudaSetDevice(index_);
}

struct Readback::State {
    cudaStream_t stream = nullptr;
    cudaEvent_t done = nullptr;
    void* memory = nullptr;
    size_t bytes = 0;
    ~State() {
        if (done) cudaEventDestroy(done);
        if (memory) cudaFreeHost(memory);
    }
};

Readback::Readback(Gpu& gpu, size_t bytes) : state_(std::make_unique<State>()) {
    state_->stream = gpu.stream();
    state_->bytes = bytes;
    check_cuda(cudaMallocHost(&state_->memory, bytes), "cudaMallocHost");
    check_cuda(cudaEventCreateWithFlags(&state_->done, cudaEventDisableTiming), "cudaEventCreate");
}
Readback::~Readback() = default;

void Readback::enqueue(const Tensor& from) {
    require(from.bytes() == state_->bytes, "readback of {}, expected {} bytes", from, state_->bytes);
    check_cuda(cudaMemcpyAsync(state_->memory, from.data, state_->bytes, cudaMemcpyDeviceToHost, state_->stream),
               "a readback");
    check_cuda(cudaEventRecord(state_->done, state_->stream), "cudaEventRecord");
}

const void* Readback::get() {
    check_cuda(cudaEventSynchronize(state_->done), "a kernel");
    return state_->memory;
}

struct SideCopy::State {
    cudaStream_t main = nullptr, side = nullptr;
    cudaEvent_t sources_ready = nullptr, done = nullptr;
    int device = 0;
    bool under_way = false;  ///< begun, and later work of the main stream does not wait for it yet
    ~State() {
        if (side) cudaStreamSynchronize(side);
        for (cudaEvent_t event : {sources_ready, done})
            if (event) cudaEventDestroy(event);
        if (side) cudaStreamDestroy(side);
    }
};

SideCopy::SideCopy(Gpu& gpu) : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.main = gpu.stream();
    check_cuda(cudaGetDevice(&s.device), "cudaGetDevice");
    check_cuda(cudaStreamCreateWithFlags(&s.side, cudaStreamNonBlocking), "cudaStreamCreate");
    check_cuda(cudaEventCreateWithFlags(&s.sources_ready, cudaEventDisableTiming), "cudaEventCreate");
    // The thread that waits sleeps, it does not spin.
    check_cuda(cudaEventCreateWithFlags(&s.done, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreate");
}
SideCopy::~SideCopy() = default;

void SideCopy::begin(const std::vector<std::pair<void*, Tensor>>& copies) {
    State& s = *state_;
    check_cuda(cudaEventRecord(s.sources_ready, s.main), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(s.side, s.sources_ready, 0), "cudaStreamWaitEvent");
    for (const auto& [to, from] : copies) {
        require(from.device == Device::cuda && from.contiguous(), "a copy of {} on {}", from, from.device);
        check_cuda(cudaMemcpyAsync(to, from.data, from.bytes(), cudaMemcpyDeviceToHost, s.side), "a copy to the host");
    }
    check_cuda(cudaEventRecord(s.done, s.side), "cudaEventRecord");
    s.under_way = true;
}

void SideCopy::hold() {
    State& s = *state_;
    if (!s.under_way) return;
    check_cuda(cudaStreamWaitEvent(s.main, s.done, 0), "cudaStreamWaitEvent");
    s.under_way = false;
}

void SideCopy::wait() const {
    // CUDA's current device is per thread; without this a waiting thread would open a context on device 0.
    check_cuda(cudaSetDevice(state_->device), "cudaSetDevice");
    check_cuda(cudaEventSynchronize(state_->done), "a copy to the host");
}

}  // namespace colonnade
