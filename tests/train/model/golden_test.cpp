// Golden values from transformers (tests/golden/make_golden.py says what a golden folder holds): logits, loss, every gradient
// and ten AdamW steps of tiny models of every family, in double to rounding and in float within the error of
// transformers' own float run; on a GPU logits, loss and gradients in bfloat16, within the error of transformers' own.
// COLONNADE_GOLDEN_DIR names one further golden folder, made from a model of your own.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/forward_pass.h"
#include "tests/support/golden_values.h"
#include "tests/support/paths.h"
#include "tests/support/relative_error.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

struct Golden {
    explicit Golden(const std::string& path)
        : folder(path),
          file(path + "/golden.safetensors"),
          json(read_json_file(path + "/golden.json")),
          config(read_model_config(path)) {}

    template <typename T>
    std::vector<T> read(const std::string& name) const {
        return golden_values<T>(file, name);
    }
    Batch batch() const { return golden_batch(file); }

    std::string folder;
    SafetensorsReader file;
    Json json;
    ModelConfig config;
};

class GoldenTest : public testing::TestWithParam<std::string> {
  protected:
    // What our error may be. In double, the rounding of long sums. In float, twice that of transformers' own float run, but
    // not less than some units in the last place, as that run is at times right by luck. Ten AdamW steps amplify rounding,
    // since an update hardly depends on the size of a gradient, and by how much is luck too: four times there. In bfloat16,
    // twice the error of transformers' own; for the loss, a single number, not less than a half unit in the last place.
    static double allowed(const Golden& golden, DType dtype, const std::string& prefix) {
        if (dtype == DType::f64) return 1e-10;
        if (dtype == DType::bf16)
            return std::max(prefix == "loss" ? 0x1p-9 : 0.0, 2 * golden.json.at("bfloat16").at(prefix).get<double>());
        const bool after_steps = prefix == "losses" || prefix == "grad_norms" || prefix == "step";
        const double floor = prefix == "grad_norms" || prefix == "step" ? 5e-6 : 5e-7;
        return std::max(floor, (after_steps ? 4 : 2) * golden.json.at("float32").at(prefix).get<double>());
    }

    static double allowed_loss(const Golden& golden, DType dtype) {
        return dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 1e-6 : allowed(golden, dtype, "loss");
    }

    // A single gradient. Loosely where all together are held tightly, as a small one has a large relative rounding.
    static double allowed_gradient(const Golden& golden, DType dtype, const std::string& name) {
        return dtype == DType::f64 ? 1e-9 : dtype == DType::f32 ? 1e-4 : allowed(golden, dtype, name);
    }

    void run(DType dtype, Gpu* gpu) {
        const Golden golden(GetParam());
        const Batch batch = golden.batch();
        Learner learner(golden.config, {.max_packs = batch.packs,
                                        .max_length = batch.length,
                                        .head_chunk = 16,
                                        .dtype = gpu ? DType::f32 : dtype,
                                        .gpu = gpu});
        learner.fill_weights(
            [&](const Tensor& flat) { load_weights(learner.parameters(), golden.config, golden.folder, flat); });

        EXPECT_LE(relative_error(ForwardPass(learner, batch).logits().data(), golden.read<double>("logits")),
                  allowed(golden, dtype, "logits"));
        learner.zero_gradients();
        learner.accumulate(learner.context(), batch, batch.target_weight);
        const double loss = learner.loss().mean();
        EXPECT_LE(relative_error(&loss, golden.read<double>("loss")), allowed_loss(golden, dtype));
        check_gradients(golden, learner, dtype);
        // In folders made for the GPU the run in double tells of the steps: how far float drifts in ten of them is luck.
        const bool drifts = dtype == DType::f32 && golden.json.contains("bfloat16");
        if (!gpu && !drifts) check_steps(golden, learner, batch, dtype);
    }

    static void check_gradients(const Golden& golden, const Learner& learner, DType dtype) {
        RelativeError all;
        const std::vector<double> gradients = numbers_of(learner, learner.gradients());
        for (const Parameter& p : learner.parameters().all()) {
            const std::vector<double> expected = golden.read<double>("grad." + p.name);
            ASSERT_EQ(static_cast<int64_t>(expected.size()), p.size()) << p.name;
            const double* found = gradients.data() + p.begin;
            EXPECT_LE(relative_error(found, expected), allowed_gradient(golden, dtype, "grad." + p.name)) << p.name;
            all.add(found, expected);
        }
        EXPECT_LE(all.value(), allowed(golden, dtype, "grad."));
    }

    static void check_steps(const Golden& golden, Learner& learner, const Batch& batch, DType dtype) {
        const Json& r = golden.json.at("recipe");
        const AdamWSettings settings{r.at("betas").at(0), r.at("betas").at(1), r.at("eps"), r.at("weight_decay")};
        const int steps = r.at("steps").get<int>();
        std::vector<double> losses, norms;
        for (int step = 0; step < steps; ++step) {
            learner.zero_gradients();
            learner.accumulate(learner.context(), batch, batch.target_weight);
            learner.update(learner.context(), settings, r.at("lr"), r.at("max_grad_norm"));
            const StepResult result = learner.result();
            losses.push_back(result.loss.mean());
            norms.push_back(result.gradient_norm);
        }
        EXPECT_LE(relative_error(losses.data(), golden.read<double>("losses")), allowed(golden, dtype, "losses"));
        EXPECT_LE(relative_error(norms.data(), golden.read<double>("grad_norms")),
                  allowed(golden, dtype, "grad_norms"));
        const std::string prefix = fmt::format("step{}.", steps);
        if (!golden.file.find(prefix + learner.parameters().all().front().name)) return;  // weights in bfloat16
        RelativeError weights;
        const std::vector<double> found = numbers_of(learner, learner.weights());
        for (const Parameter& p : learner.parameters().all())
            weights.add(found.data() + p.begin, golden.read<double>(prefix + p.name));
        // The golden final weights are stored in float: its rounding is the floor in double.
        EXPECT_LE(weights.value(), dtype == DType::f64 ? 1e-7 : allowed(golden, dtype, "step"));
    }
};

TEST_P(GoldenTest, Double) {
    run(DType::f64, nullptr);
}
TEST_P(GoldenTest, Float) {
    run(DType::f32, nullptr);
}

/// Over the folders that say how far transformers' bfloat16 is off.
class GpuGoldenTest : public GoldenTest {};

TEST_P(GpuGoldenTest, Bfloat16) {
    if (cuda_devices().empty()) GTEST_SKIP() << "no CUDA device";
    run(DType::bf16, test_gpu());
}

std::vector<std::string> golden_folders() {
    std::vector<std::string> folders;
    for (const auto& entry : fs::directory_iterator(golden_file("models")))
        if (entry.is_directory()) folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end());
    if (const char* own = std::getenv("COLONNADE_GOLDEN_DIR")) folders.push_back(own);
    return folders;
}

std::vector<std::string> bfloat16_folders() {
    std::vector<std::string> folders = golden_folders();
    std::erase_if(folders,
                  [](const std::string& f) { return !read_json_file(f + "/golden.json").contains("bfloat16"); });
    return folders;
}

std::string name_of_folder(const testing::TestParamInfo<std::string>& test) {
    std::string name = fs::path(test.param).filename();
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(golden_folders()), name_of_folder);
INSTANTIATE_TEST_SUITE_P(Models, GpuGoldenTest, testing::ValuesIn(bfloat16_folders()), name_of_folder);

}  // namespace
}  // namespace colonnade
