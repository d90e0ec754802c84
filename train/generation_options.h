#pragma once
// The command line of programs that generate: which model, on which device, and how tokens are drawn.

#include "engine/program/command_line.h"
#include "train/generation/generator.h"
#include "train/run/loaded_model.h"

namespace colonnade {

struct GenerationOptions {
    LoadRequest load{};
    std::string system{};
    std::vector<std::string> stops{};  ///< strings that end an answer
    GenerateOptions generate{};
    int64_t max_length = 0;  ///< 0: the program chooses
    int64_t threads = 0, device_index = 0;
    std::string device = "auto", template_variables{};
    bool ignore_eos = false;

    void declare(CLI::App& app);
};

/// A model on its device.
struct OpenModel {
    std::unique_ptr<Gpu> gpu;
    std::unique_ptr<LoadedModel> model;
    Context context() const { return {.device = gpu ? Device::cuda : Device::cpu, .gpu = gpu.get()}; }
};
/// Chooses the device, loads the model and prints its notices to stderr. Fills options.generate.stop_ids.
OpenModel open_model(GenerationOptions& options);

}  // namespace colonnade
