#pragma once
// Gpu: one CUDA device and what a training step needs of it: a stream in whose order everything happens, pinned memory
// through which host data travels, the plans of its matrix products, and events that time phases. The host only ever
// waits in download() and synchronize().
//
// Without CUDA in the build (engine/device/gpu_without_cuda.cpp) a Gpu cannot be made: Exit::config.

#include <functional>
#include <memory>

#include "engine/device/tensor.h"

struct CUstream_st;  // what cudaStream_t points to

namespace colonnade {

class Profile;

class Gpu {
  public:
    /// Takes device `index` of the machine. Throws Exit::config where there is none, or one older than sm_80.
    explicit Gpu(int index = 0);
    ~Gpu();
    Gpu(const Gpu&) = delete;
    Gpu& operator=(const Gpu&) = delete;

    CUstream_st* stream() const;
    const std::string& name() const;
    int compute_capability() const;  ///< 90 for sm_90
    /// True on a Hopper GPU if the build has code for sm_90a, which its own instructions (wgmma, bulk copies) need.
    bool runs_hopper_kernels() const;
    int multiprocessors() const;

    /// Enqueues a copy to contiguous device memory. `from` may be changed or freed as soon as this returns.
    void upload(const Tensor& to, const void* from);
    /// The same with an element conversion that writes [first, first + count) elements of `to`'s dtype to pinned memory.
    void upload(const Tensor& to, const std::function<void(void* out, int64_t first, int64_t count)>& fill);
    /// Waits for what is enqueued and copies contiguous device memory to the host.
    void download(void* to, const Tensor& from);
    void zero(const Tensor& tensor);
    /// Enqueues a copy between contiguous tensors of the same bytes.
    void copy(const Tensor& to, const Tensor& from);
    /// Waits for everything that was enqueued. Throws Exit::peer where the device failed.
    void synchronize();

    /// Phases of the stream's work, timed by events; collect_phases() waits and adds them to a profile.
    void begin_phase(const char* phase);
    void end_phase();
    void collect_phases(Profile& profile);

    struct State;
    State& state() const { return *state_; }  ///< for engine's own .cu files

  private:
    std::unique_ptr<State> state_;
};

/// A value read back without waiting: enqueue() copies a small device tensor into pinned memory, get() waits for that
/// copy alone.
class Readback {
  public:
    Readback(Gpu& gpu, size_t bytes);
    ~Readback();
    Readback(const Readback&) = delete;
    Readback& operator=(const Readback&) = delete;
    void enqueue(const Tensor& from);
    const void* get();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Zeroed device memory on the current device; Exit::memory with the figures where it does not fit.
std::shared_ptr<void> allocate_on_gpu(size_t bytes);

}  // namespace colonnade
