// selftest: measures what Colonnade promises, on this machine, and with a config, or a model and data, on those.

#include "engine/device/gpu.h"
#include "engine/program/command_line.h"
#include "train/run/machine.h"
#include "train/run/run_arguments.h"
#include "train/selftest/selftest.h"

namespace colonnade {
namespace {

struct Options {
    std::string device;
    int64_t tokens = 1024;
};

std::unique_ptr<Gpu> gpu_of(Device device, const Config& config) {
    return device == Device::cuda ? std::make_unique<Gpu>(static_cast<int>(config.device_index)) : nullptr;
}

int report(const std::vector<Check>& checks, const std::string& title) {
    const std::vector<CheckResult> results = run_checks(checks);
    fmt::print("{}\n{}", title, table_of(results));
    if (all_pass(results)) return 0;
    fmt::print("selftest FAILED: see docs/selftest.md for what to do\n");
    return static_cast<int>(Exit::numerics);
}

int test_built_in(const std::string& device_choice) {
    Config config;
    if (device_choice == "cpu") config.device = DeviceChoice::cpu;
    if (device_choice == "cuda") config.device = DeviceChoice::cuda;
    const Device device = settle_machine(config);
    const auto gpu = gpu_of(device, config);
    return report(built_in_checks(gpu.get()),
                  fmt::format("{}, {}: small models with random weights", device_text(device, config.device_index),
                              device == Device::cuda ? "bf16" : "f32"));
}

int test_run(RunArguments arguments, const Options& o) {
    if (!o.device.empty()) arguments.keys.push_back("device=" + o.device);
    const Session session = open_session(load_run(arguments));
    const auto gpu = gpu_of(session.device, session.config);
    return report(
        run_checks_of(session, gpu.get(), o.tokens),
        fmt::format("{}, {}: {}", device_text(session.device, session.config.device_index),
                    session.device == Device::cuda ? "bf16" : "f32",
                    session.config.model_name_or_path.empty() ? "random weights" : session.config.model_name_or_path));
}

}  // namespace

Work selftest_command(CLI::App& app) {
    const auto o = std::make_shared<Options>();
    app.add_option("--device", o->device, "default: cuda if there is a GPU, otherwise cpu")
        ->check(CLI::IsMember({"cpu", "cuda"}));
    const auto* tokens =
        app.add_option("--tokens", o->tokens, "of a run: about how many tokens of its data a check computes")
            ->check(at_least(1))
            ->capture_default_str();
    app.allow_extras();
    app.footer(
        "Without arguments it needs no file: small models with random weights and random data. With a run, the same "
        "checks "
        "on its model and some of its samples. Exit code 4 if a check fails.");
    return [o, tokens, &app] {
        const RunArguments arguments = split_run_arguments(app.remaining());
        if (!arguments.names.empty()) return test_run(arguments, *o);
        if (!arguments.keys.empty())
            fail(Exit::config, "{}: keys belong to a run; expected a config, or a model and data, before them",
                 arguments.keys[0]);
        if (tokens->count() > 0)
            fail(Exit::config, "--tokens belongs to a run; expected a config, or a model and data");
        return test_built_in(o->device);
    };
}

}  // namespace colonnade
