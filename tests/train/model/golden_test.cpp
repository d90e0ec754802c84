// Golden values of transformers (tests/golden/make_golden.py describes a golden folder): logits, loss, every gradient
// and ten AdamW steps of tiny models of every family, in double to rounding, in float within the error of transformers'
// own float run, and on a GPU logits, loss and gradients in bfloat16 within the error of transformers' own bfloat16
// run. COLONNADE_GOLDEN_DIR names a further golden folder, made from your own model.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/forward_pass.h"
#include "tests/support/golden_values.h"
#include "tests/support/paths.h"
#include "tests/support/relative_error.h"
#include "train/model/weight_folder.h"

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
    // The allowed error. Double: the rounding of long sums. Float: twice the error of transformers' own float run, but
    // at least some units in the last place, because that run is sometimes exact by luck. Ten AdamW steps amplify
    // rounding by a random factor, because an update hardly depends on the size of a gradient: four times there.
    // Bfloat16: twice the error of transformers' own run; for the loss, a single number, at least half a unit in the
    // last place.
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

    // A single gradient: looser than the bound on all gradients together, as small ones have a large relative rounding.
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
        learner.begin_step();
        learner.accumulate(learner.context(), batch, {.total = batch.target_weight});
        const double loss = learner.loss().mean();
        EXPECT_LE(relative_error(&loss, golden.read<double>("loss")), allowed_loss(golden, dtype));
        check_gradients(golden, learner, dtype);
        // Folders made for the GPU check the steps in double only: the drift of float over ten steps is random.
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
            learner.begin_step();
            learner.accumulate(learner.context(), batch, {.total = batch.target_weight});
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
        const std::vector<double> found = weights_of(learner);
        for (const Parameter& p : learner.parameters().all())
            weights.add(found.data() + p.begin, golden.read<double>(prefix + p.name));
        // The golden final weights are stored in float, whose rounding bounds the error in double from below.
        EXPECT_LE(weights.value(), dtype == DType::f64 ? 1e-7 : allowed(golden, dtype, "step"));
    }
};

TEST_P(GoldenTest, Double) {
    run(DType::f64, nullptr);
}
TEST_P(GoldenTest, Float) {
    run(DType::f32, nullptr);
}

/// Runs over the folders that hold the error of transformers' bfloat16 run.
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
