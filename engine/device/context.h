#pragma once
// Context: where an op runs. It is passed to every op; there are no hidden globals. It is a plain value, cheap to copy.
// Several threads may run ops at the same time if each has a Gpu and a Profile of its own.

#include <chrono>
#include <map>
#include <string>

#include "engine/device/gpu.h"
#include "engine/device/tensor.h"

namespace colonnade {

/// Seconds per phase of a step ("gemm", "attention", ...), for benchmarks and the log.
class Profile {
  public:
    void add(const char* phase, double seconds) { seconds_[phase] += seconds; }
    void clear() { seconds_.clear(); }
    const std::map<std::string, double>& seconds() const { return seconds_; }

  private:
    std::map<std::string, double> seconds_;
};

struct Context {
    Device device = Device::cpu;
    Profile* profile = nullptr;  ///< optional
    Gpu* gpu = nullptr;          ///< set if and only if device is cuda
    bool deterministic = false;  ///< GPU: the same bits in every run, also in attention's backward; the CPU always is
};

/// Adds the time between construction and destruction to ctx.profile; on a GPU when Gpu::collect_phases() is called.
/// Costs nothing without a profile. Phases do not nest.
class PhaseTimer {
  public:
    PhaseTimer(const Context& ctx, const char* phase) : PhaseTimer(ctx.profile, ctx.gpu, phase) {}
    /// For code that only enqueues on a GPU: measures nothing there.
    static PhaseTimer on_cpu(const Context& ctx, const char* phase) {
        return PhaseTimer(ctx.device == Device::cpu ? ctx.profile : nullptr, nullptr, phase);
    }
    ~PhaseTimer() {
        if (!profile_) return;
        if (gpu_)
            gpu_->end_phase();
        else
            profile_->add(phase_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
    }
    PhaseTimer(const PhaseTimer&) = delete;
    PhaseTimer& operator=(const PhaseTimer&) = delete;

  private:
    PhaseTimer(Profile* profile, Gpu* gpu, const char* phase) : profile_(profile), gpu_(gpu), phase_(phase) {
        if (!profile_) return;
        if (gpu_)
            gpu_->begin_phase(phase);
        else
            start_ = std::chrono::steady_clock::now();
    }

    Profile* profile_;
    Gpu* gpu_;
    const char* phase_;
    std::chrono::steady_clock::time_point start_{};
};

}  // namespace colonnade
