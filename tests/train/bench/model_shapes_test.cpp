// Compares published shapes with the parameter counts that Hugging Face reports for their safetensors.

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "train/bench/model_shapes.h"
#include "train/model/parameters.h"

namespace colonnade {
namespace {

TEST(ModelShapes, HaveThePublishedParameterCounts) {
    const std::vector<std::pair<std::string, int64_t>> published = {
        {"qwen2.5-0.5b", 494'032'768},  {"qwen2.5-1.5b", 1'543'714'304}, {"qwen2.5-3b", 3'085'938'688},
        {"qwen2.5-7b", 7'615'616'512},  {"llama3.2-1b", 1'235'814'400},  {"llama3.2-3b", 3'212'749'824},
        {"llama3.1-8b", 8'030'261'248}, {"llama2-7b", 6'738'415'616},    {"qwen3-0.6b", 596'049'920},
        {"qwen3-1.7b", 1'720'574'976},  {"qwen3-4b", 4'022'468'096},     {"qwen3-8b", 8'190'735'360},
    };
    std::vector<std::string> names;
    for (const auto& [name, parameters] : published) {
        names.push_back(name);
        const ModelConfig config = model_shape(name);
        EXPECT_NO_THROW(validate(config, name));
        EXPECT_EQ(ParameterList(config).count(), parameters) << name;
        // The model survives to_json and parse_model_config, rope scaling, biases and norms included.
        const ModelConfig again = parse_model_config(to_json(config), name);
        EXPECT_EQ(to_json(again), to_json(config)) << name;
    }
    EXPECT_EQ(model_shape_names(), names);
}

TEST(ModelShapes, AnUnknownNameListsTheNearestFirst) {
    expect_error(Exit::config, "--model llama3.2-3B: no such shape; expected one of llama3.2-3b, llama3.2-1b, ",
                 [] { model_shape("llama3.2-3B"); });
}

}  // namespace
}  // namespace colonnade
