#pragma once
// Gpu: one CUDA device and what a training step needs of it: a stream that orders all work, pinned memory for copies
// from and to the host, cuBLASLt plans, and events that time phases. Only download(), synchronize() and
// collect_phases() wait for the device; upload() waits if its pinned memory is still in use.
//
// Threads: a Gpu is used by one thread at a time. CUDA's current device is per thread: the constructor sets it for the
// calling thread, and another thread that uses the Gpu must call cudaSetDevice first. Two Gpus share nothing.
//
// In a build without CUDA (engine/device/gpu_without_cuda.cpp) the constructors throw Exit::config.

#include <functional>
#include <memory>

#include "engine/device/tensor.h"

struct CUstream_st;  // what cudaStream_t points to

namespace colonnade {

class Profile;

class Gpu {
  public:
    /// Uses device `index` of the machine with a stream of its own. Throws Exit::config if the device does not exist or
    /// is older than sm_80.
    explicit Gpu(int index = 0);
    /// The same on a stream of the caller, for example PyTorch's current stream; null is CUDA's default stream. Work is
    /// enqueued in that stream's order. The stream belongs to device `index`, stays the caller's and must outlive the
    /// Gpu. Nothing is opened here, so that every call may have a Gpu of its own: the first upload, download or matrix
    /// product opens pinned memory or cuBLASLt. After one of these the destructor waits for the stream, else it does not.
    Gpu(int index, CUstream_st* stream);
    ~Gpu();
    Gpu(const Gpu&) = delete;
    Gpu& operator=(const Gpu&) = delete;

    CUstream_st* stream() const;
    const std::string& name() const;
    int compute_capability() const;  ///< 90 for sm_90
    /// True on a Hopper GPU if the build has code for sm_90a, which wgmma and bulk copies need.
    bool runs_hopper_kernels() const;
    int multiprocessors() const;

    /// Enqueues a copy to contiguous device memory. `from` may be changed or freed as soon as this returns.
    void upload(const Tensor& to, const void* from);
    /// The same, with a function that writes elements [first, first + count), converted to `to`'s dtype, to pinned
    /// memory.
    void upload(const Tensor& to, const std::function<void(void* out, int64_t first, int64_t count)>& fill);
    /// Waits for all enqueued work, then copies contiguous device memory to the host.
    void download(void* to, const Tensor& from);
    void zero(const Tensor& tensor);
    /// Enqueues a copy between contiguous tensors with the same number of bytes.
    void copy(const Tensor& to, const Tensor& from);
    /// Waits for all enqueued work. Throws Exit::peer if the device failed.
    void synchronize();

    /// Phases of the stream's work, timed by events (see PhaseTimer). collect_phases() waits and adds them to a
    /// profile.
    void begin_phase(const char* phase);
    void end_phase();
    void collect_phases(Profile& profile);

    struct State;
    State& state() const { return *state_; }  ///< for engine's own .cu files

  private:
    std::unique_ptr<State> state_;
};

/// Remembers the current CUDA device of the calling thread and sets it back at the end of its scope: for calls from
/// programs that have a current device of their own.
class CurrentDevice {
  public:
    CurrentDevice();
    ~CurrentDevice();
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

  private:
    int index_ = 0;
};

/// Reads a small tensor back without stalling the stream: enqueue() copies it into pinned memory, get() waits for that
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

/// Copies device memory to host memory beside the stream's work, on a stream of its own:
///
///     begin(copies)   after all work enqueued so far; `copies` are pairs of host memory and its source
///     hold()          work enqueued from now on comes after the copies; call it before work that changes the sources
///     wait()          the host waits for the copies, on any thread
///
/// The host memory should be pinned (Arena::in_host_memory).
class SideCopy {
  public:
    explicit SideCopy(Gpu& gpu);
    ~SideCopy();  ///< waits
    SideCopy(const SideCopy&) = delete;
    SideCopy& operator=(const SideCopy&) = delete;
    void begin(const std::vector<std::pair<void*, Tensor>>& copies);
    void hold();
    void wait() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Bytes of the current device's memory that nobody uses.
size_t available_gpu_memory();
/// Zeroed memory on the current device. Throws Exit::memory with the requested and available sizes if it does not fit.
std::shared_ptr<void> allocate_on_gpu(size_t bytes);
/// The same host memory, pinned until its last owner is gone. Throws Exit::memory if the system does not pin so much.
std::shared_ptr<void> pinned(std::shared_ptr<void> memory, size_t bytes);

}  // namespace colonnade
