#include "engine/device/checksum.h"
#include "engine/device/gemm.h"
#include "engine/device/gpu.h"
#include "engine/device/gpu_timer.h"
#include "engine/device/used_memory.h"
#include "engine/device/without_cuda.h"

namespace colonnade {

struct Gpu::State {};
Gpu::Gpu(int) {
    no_cuda();
}
Gpu::Gpu(int, CUstream_st*) {
    no_cuda();
}
Gpu::~Gpu() = default;
CUstream_st* Gpu::stream() const {
    no_cuda();
}
const std::string& Gpu::name() const {
    no_cuda();
}
int Gpu::compute_capability() const {
    no_cuda();
}
bool Gpu::runs_hopper_kernels() const {
    no_cuda();
}
int Gpu::multiprocessors() const {
    no_cuda();
}
void Gpu::upload(const Tensor&, const void*) {
    no_cuda();
}
void Gpu::upload(const Tensor&, const std::function<void(void*, int64_t, int64_t)>&) {
    no_cuda();
}
void Gpu::download(void*, const Tensor&) {
    no_cuda();
}
void Gpu::zero(const Tensor&) {
    no_cuda();
}
void Gpu::copy(const Tensor&, const Tensor&) {
    no_cuda();
}
void Gpu::synchronize() {
    no_cuda();
}
void Gpu::begin_phase(const char*) {
    no_cuda();
}
void Gpu::end_phase() {}
void Gpu::collect_phases(Profile&) {
    no_cuda();
}

CurrentDevice::CurrentDevice() {
    no_cuda();
}
CurrentDevice::~CurrentDevice() = default;

struct Readback::State {};
Readback::Readback(Gpu&, size_t) {
    no_cuda();
}
Readback::~Readback() = default;
void Readback::enqueue(const Tensor&) {
    no_cuda();
}
const void* Readback::get() {
    no_cuda();
}

struct SideCopy::State {};
SideCopy::SideCopy(Gpu&) {
    no_cuda();
}
SideCopy::~SideCopy() = default;
void SideCopy::begin(const std::vector<std::pair<void*, Tensor>>&) {
    no_cuda();
}
void SideCopy::hold() {
    no_cuda();
}
void SideCopy::wait() const {
    no_cuda();
}

size_t available_gpu_memory() {
    no_cuda();
}
size_t used_gpu_memory() {
    no_cuda();
}
std::shared_ptr<void> allocate_on_gpu(size_t) {
    no_cuda();
}
std::shared_ptr<void> pinned(std::shared_ptr<void>, size_t) {
    no_cuda();
}
bool cuda::gemm_takes_fp8() {
    return false;
}
void cuda::gemm(const Context&, const Gemm&) {
    no_cuda();
}
void cuda::checksum(const Context&, const Tensor&, const Tensor&, int64_t) {
    no_cuda();
}

struct GpuTimer::State {};
GpuTimer::GpuTimer(Gpu&) {
    no_cuda();
}
GpuTimer::~GpuTimer() = default;
void GpuTimer::start() {
    no_cuda();
}
void GpuTimer::stop() {
    no_cuda();
}
std::vector<double> GpuTimer::seconds() {
    no_cuda();
}

}  // namespace colonnade
