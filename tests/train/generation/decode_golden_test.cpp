// Answers equal those of transformers and PEFT in float32, token by token, for every family and with adapters
// (tests/golden/make_decode_golden.py).

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/paths.h"
#include "train/generation/generator.h"
#include "train/run/loaded_model.h"

namespace colonnade {
namespace {

std::vector<int32_t> ids_of(const Json& json) {
    return json.get<std::vector<int32_t>>();
}

/// All cases of one model at once, greedy and penalised.
void compare(const std::string& folder, const std::vector<Json>& cases) {
    LoadRequest request{.model = folder, .text = false};
    if (std::filesystem::exists(folder + "/adapter_config.json")) {
        const std::string named = read_json_file(folder + "/adapter_config.json")["base_model_name_or_path"];
        request.base = golden_file(named.substr(std::string("tests/golden/").size()));
    }
    const LoadedModel model(request);
    Generator generator(model.config(), model.weights(), {.max_length = 256, .batch = 5, .lora = model.lora()});
    std::vector<Request> requests;
    std::vector<std::vector<int32_t>> expected;
    for (const Json& one : cases)
        for (const auto& [key, penalty] : {std::pair("greedy", 1.0f), {"penalised", 1.3f}}) {
            expected.push_back(ids_of(one[key]));
            requests.push_back({.prompt = ids_of(one["prompt"]),
                                .options = {.max_new_tokens = std::ssize(expected.back()),
                                            .sampling = {.repetition_penalty = penalty}}});
        }
    const std::vector<Answer> answers = generator.answer(Context(), requests);
    for (size_t i = 0; i < answers.size(); ++i)
        EXPECT_EQ(answers[i].tokens, expected[i]) << folder << ", prompt of " << requests[i].prompt.size() << " tokens";
}

void compare_file(const std::string& path, const std::string& root, size_t least_models) {
    std::map<std::string, std::vector<Json>> cases;
    for (const Json& one : read_json_file(path)) cases[root + one["model"].get<std::string>()].push_back(one);
    EXPECT_GE(cases.size(), least_models);
    for (const auto& [folder, some] : cases) compare(folder, some);
}

TEST(DecodeGolden, EqualsTransformersAndPeft) {
    compare_file(golden_file("decode_golden.json"), golden_file(""), 12);
}

TEST(DecodeGolden, EqualsTransformersForYourModel) {
    const char* path = std::getenv("COLONNADE_DECODE_GOLDEN");
    if (!path) GTEST_SKIP() << "COLONNADE_DECODE_GOLDEN is not set";
    compare_file(path, "", 1);
}

}  // namespace
}  // namespace colonnade
