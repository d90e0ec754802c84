// links: train
// Golden values from transformers (tests/make_golden.py says what a golden folder holds): logits, loss, every gradient
// and ten AdamW steps of tiny models of every family, in double to rounding and in float within the error of
// transformers' own float run. COLONNADE_GOLDEN_DIR names one further golden folder, made from a model of your own.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "layers/linear.h"
#include "tiny_model.h"

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
        const TensorInfo* info = file.find(name);
        if (!info) throw std::runtime_error(folder + ": no tensor " + name);
        std::vector<T> values(static_cast<size_t>(info->numel()));
        file.read(*info, Tensor(values.data(), dtype_of<T>(), {info->numel()}));
        return values;
    }

    Batch batch() const {
        Batch b;
        b.packs = file.find("input_ids")->shape[0];
        b.length = file.find("input_ids")->shape[1];
        b.tokens = read<int32_t>("input_ids");
        b.positions = read<int32_t>("positions");
        b.rows = read<int32_t>("rows");
        b.targets = read<int32_t>("targets");
        b.weights = read<float>("weights");
        for (const float w : b.weights) b.target_weight += w;
        std::vector<std::vector<int64_t>> ends(static_cast<size_t>(b.packs));
        for (const int32_t end : read<int32_t>("document_ends")) {
            const int64_t pack = (end - 1) / b.length;
            ends[static_cast<size_t>(pack)].push_back(end - pack * b.length);
        }
        std::vector<ColumnMask> masks;
        for (const auto& e : ends) masks.push_back(causal_document_mask(b.length, e));
        b.mask = stack(masks);
        return b;
    }

    std::string folder;
    SafetensorsReader file;
    Json json;
    ModelConfig config;
};

/// Relative L2 error over one or several tensors.
struct RelativeError {
    double error = 0, norm = 0;
    template <typename T>
    void add(const T* found, const std::vector<double>& expected) {
        for (size_t i = 0; i < expected.size(); ++i) {
            const double d = static_cast<double>(found[i]) - expected[i];
            error += d * d;
            norm += expected[i] * expected[i];
        }
    }
    double value() const { return std::sqrt(error / norm); }
};

template <typename T>
double relative_error(const T* found, const std::vector<double>& expected) {
    RelativeError e;
    e.add(found, expected);
    return e.value();
}

class GoldenTest : public testing::TestWithParam<std::string> {
  protected:
    // What our error may be. In double, the rounding of long sums. In float, twice that of transformers' own float run, but
    // not less than some units in the last place, as that run is at times right by luck. Ten AdamW steps amplify rounding,
    // since an update hardly depends on the size of a gradient, and by how much is luck too: four times there.
    static double allowed(const Golden& golden, DType dtype, const std::string& prefix) {
        if (dtype == DType::f64) return 1e-10;
        const bool after_steps = prefix == "losses" || prefix == "grad_norms" || prefix == "step";
        const double floor = prefix == "grad_norms" || prefix == "step" ? 5e-6 : 5e-7;
        return std::max(floor, (after_steps ? 4 : 2) * golden.json.at("float32").at(prefix).get<double>());
    }

    template <typename T>
    void run() {
        const Golden golden(GetParam());
        const DType dtype = dtype_of<T>();
        const Batch batch = golden.batch();
        Learner learner(golden.config,
                        {.max_packs = batch.packs, .max_length = batch.length, .head_chunk = 16, .dtype = dtype});
        load_weights(learner.parameters(), golden.config, golden.folder, learner.weights());

        EXPECT_LE(relative_error(logits<T>(learner, batch).data(), golden.read<double>("logits")),
                  allowed(golden, dtype, "logits"));
        learner.zero_gradients();
        const double loss = learner.accumulate(Context(), batch, batch.target_weight).mean();
        EXPECT_LE(relative_error(&loss, golden.read<double>("loss")), dtype == DType::f64 ? 1e-12 : 1e-6);
        check_gradients<T>(golden, learner);
        check_steps<T>(golden, learner, batch);
    }

    template <typename T>
    static std::vector<T> logits(const Learner& learner, const Batch& batch) {
        const ModelConfig& c = learner.config();
        const auto lay_out = [&](Arena& arena) {
            return std::pair(Activations::lay_out(arena, c, batch.packs, batch.length, dtype_of<T>(), false),
                             arena.tensor("logits", dtype_of<T>(), {batch.tokens_total(), c.vocab_size}));
        };
        Arena plan(Device::cpu);
        lay_out(plan);
        Arena arena(Device::cpu, plan.bytes());
        auto [acts, out] = lay_out(arena);
        const AttentionMasks masks(c, batch.mask);
        learner.model().forward({}, {batch.packs, batch.length, batch.tokens, batch.positions, masks}, acts);
        linear_forward({}, {.out = out, .in = acts.hidden, .weight = learner.model().weights().head, .bias = {}});
        return values_of<T>(out);
    }

    template <typename T>
    void check_gradients(const Golden& golden, const Learner& learner) {
        RelativeError all;
        // Each one loosely (a small gradient has a large relative rounding), all together tightly.
        const double each = std::is_same_v<T, double> ? 1e-9 : 1e-4;
        for (const Parameter& p : learner.parameters().all()) {
            const std::vector<double> expected = golden.read<double>("grad." + p.name);
            ASSERT_EQ(static_cast<int64_t>(expected.size()), p.size()) << p.name;
            const T* found = learner.gradients().as<T>() + p.begin;
            EXPECT_LE(relative_error(found, expected), each) << p.name;
            all.add(found, expected);
        }
        EXPECT_LE(all.value(), allowed(golden, dtype_of<T>(), "grad."));
    }

    template <typename T>
    void check_steps(const Golden& golden, Learner& learner, const Batch& batch) {
        const Json& r = golden.json.at("recipe");
        const AdamWSettings settings{r.at("betas").at(0), r.at("betas").at(1), r.at("eps"), r.at("weight_decay")};
        const int steps = r.at("steps").get<int>();
        std::vector<double> losses, norms;
        for (int step = 0; step < steps; ++step) {
            learner.zero_gradients();
            losses.push_back(learner.accumulate({}, batch, batch.target_weight).mean());
            norms.push_back(learner.update({}, settings, r.at("lr"), r.at("max_grad_norm")).gradient_norm);
        }
        const DType dtype = dtype_of<T>();
        EXPECT_LE(relative_error(losses.data(), golden.read<double>("losses")), allowed(golden, dtype, "losses"));
        EXPECT_LE(relative_error(norms.data(), golden.read<double>("grad_norms")),
                  allowed(golden, dtype, "grad_norms"));
        const std::string prefix = fmt::format("step{}", steps);
        RelativeError weights;
        for (const Parameter& p : learner.parameters().all())
            weights.add(learner.weights().as<T>() + p.begin, golden.read<double>(prefix + "." + p.name));
        // The golden final weights are stored in float: its rounding is the floor in double.
        EXPECT_LE(weights.value(), dtype == DType::f64 ? 1e-7 : allowed(golden, dtype, "step"));
    }
};

TEST_P(GoldenTest, Double) {
    run<double>();
}
TEST_P(GoldenTest, Float) {
    run<float>();
}

std::vector<std::string> golden_folders() {
    std::vector<std::string> folders;
    for (const auto& entry : fs::directory_iterator(COLONNADE_TEST_DATA "/golden"))
        if (entry.is_directory()) folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end());
    if (const char* own = std::getenv("COLONNADE_GOLDEN_DIR")) folders.push_back(own);
    return folders;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(golden_folders()), [](const auto& test) {
    std::string name = fs::path(test.param).filename();
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
    return name;
});

}  // namespace
}  // namespace colonnade
