#pragma once
// Context: where an op runs. Passed to every op; there are no hidden globals.

#include <chrono>
#include <map>
#include <string>

#include "engine/tensor.h"

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
};

/// For ops that have only a CPU kernel: Exit::config with one clear line on any other device.
inline void require_cpu(const Context& ctx, const char* op) {
    if (ctx.device != Device::cpu)
        fail(Exit::config, "{} has no kernel for device {}: run with device: cpu", op, name_of(ctx.device));
}

/// Adds the time between construction and destruction to ctx.profile; free when there is none.
class PhaseTimer {
  public:
    PhaseTimer(const Context& ctx, const char* phase) : profile_(ctx.profile), phase_(phase) {
        if (profile_) start_ = std::chrono::steady_clock::now();
    }
    ~PhaseTimer() {
        if (profile_)
            profile_->add(phase_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
    }
    PhaseTimer(const PhaseTimer&) = delete;
    PhaseTimer& operator=(const PhaseTimer&) = delete;

  private:
    Profile* profile_;
    const char* phase_;
    std::chrono::steady_clock::time_point start_{};
};

}  // namespace colonnade
