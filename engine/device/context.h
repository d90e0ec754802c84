#pragma once
// Context: where an op runs. Passed to every op; there are no hidden globals.

#include <chrono>
#include <map>
#include <string>

#include "engine/device/gpu.h"
#include "engine/device/tensor.h"

namespace colonnade {

/// Seconds by phase of a step ("gemm", "attention", ...), for benchmarks and the log.
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
    Gpu* gpu = nullptr;          ///< exactly where device is cuda
    bool deterministic = false;  ///< GPU: the same bits in every run, attention's backward included; the CPU always is
};

/// Adds the time between construction and destruction to ctx.profile, on a GPU once Gpu::collect_phases() is called;
/// free when there is no profile. Phases do not nest.
class PhaseTimer {
  public:
    PhaseTimer(const Context& ctx, const char* phase) : profile_(ctx.profile), gpu_(ctx.gpu), phase_(phase) {
        if (!profile_) return;
        if (gpu_)
            gpu_->begin_phase(phase);
        else
            start_ = std::chrono::steady_clock::now();
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
    Profile* profile_;
    Gpu* gpu_;
    const char* phase_;
    std::chrono::steady_clock::time_point start_{};
};

}  // namespace colonnade
