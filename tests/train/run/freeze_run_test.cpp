// Runs with frozen layers from a user's view: the whole model is written, resuming gives the same bits, a checkpoint
// exports and generates as the finished run does, and what must not differ between checkpoint and run.

#include "engine/io/safetensors.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class FreezeRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        train(config(), {output("base"), "max_steps=4", "learning_rate=0.01", "save_strategy=no"});
        spill(path("freeze.yaml"),
              fmt::format("model_name_or_path: {}\nfinetuning_type: freeze\nfreeze_trainable_layers: 1\n"
                          "freeze_extra_modules: [norm]\noptim: adamw_8bit\n"
                          "datasets: [{{path: {}}}]\nmax_length: 48\npacking_length: 64\nprepared_path: {}\n"
                          "threads: 1\nreport_to: [jsonl]\ngradient_accumulation_steps: 2\nmax_steps: 6\n"
                          "learning_rate: 0.01\nweight_decay: 0.1\nsave_steps: 1\nsave_total_limit: 0\n",
                          path("base"), path("train.jsonl"), path("prepared")));
    }
    std::string frozen() const { return path("freeze.yaml"); }
    std::string model_of(const std::string& folder) const { return slurp(folder + "/model.safetensors"); }
    std::string bytes_of(const SafetensorsReader& file, const TensorInfo& tensor) const {
        std::vector<float> values(static_cast<size_t>(tensor.numel()));
        file.read(tensor, Tensor(values.data(), DType::f32, {tensor.numel()}));
        return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    }
};

TEST_F(FreezeRun, WritesTheModelWithItsFrozenLayers) {
    const std::string printed = train(frozen(), {output("run")});
    EXPECT_NE(printed.find("\nfrozen     "), std::string::npos) << printed;
    const SafetensorsReader before(path("base/model.safetensors")), after(path("run/model.safetensors"));
    const int64_t last = read_model_config(path("base")).num_hidden_layers - 1;
    int changed = 0;
    for (const TensorInfo& tensor : before.tensors()) {
        ASSERT_TRUE(after.find(tensor.name)) << tensor.name;
        const bool same = bytes_of(before, tensor) == bytes_of(after, *after.find(tensor.name));
        const bool trained =
            tensor.name == "model.norm.weight" || tensor.name.starts_with(fmt::format("model.layers.{}.", last));
        EXPECT_EQ(same, !trained) << tensor.name;
        changed += !same;
    }
    EXPECT_GE(changed, 10);
    // A checkpoint has the trained layers alone, and makes the same model.
    const std::string checkpoint = checkpoint_folder(path("run"), 6);
    EXPECT_LT(fs::file_size(checkpoint + "/state-00001-of-00001.h5"), fs::file_size(path("base/model.safetensors")));
    EXPECT_EQ(run("export", {checkpoint, path("exported"), "--dtype", "float32"}).exit, 0);
    EXPECT_TRUE(model_of(path("exported")) == model_of(path("run")));
}

TEST_F(FreezeRun, ResumesBitForBit) {
    train(frozen(), {output("unbroken")});
    for (const int64_t stop : {1, 4}) {
        const std::string name = fmt::format("stopped-{}", stop);
        fs::create_directories(path(name));
        fs::copy(checkpoint_folder(path("unbroken"), stop), checkpoint_folder(path(name), stop));
        train(frozen(), {output(name), "resume_from_checkpoint=auto", "gradient_checkpointing=block"});
        EXPECT_TRUE(state_of_checkpoint(checkpoint_folder(path(name), 6)) ==
                    state_of_checkpoint(checkpoint_folder(path("unbroken"), 6)));
        EXPECT_TRUE(model_of(path(name)) == model_of(path("unbroken"))) << stop;
    }
}

/// Muon alone: no parameter is left for AdamW.
TEST_F(FreezeRun, TrainsMatricesAlone) {
    const std::vector<std::string> muon = {"optim=muon", "freeze_trainable_modules=mlp", "freeze_extra_modules=none"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.end(), muon.begin(), muon.end());
        return more;
    };
    train(frozen(), with({output("whole"), "max_steps=4"}));
    EXPECT_FALSE(model_of(path("whole")) == model_of(path("base")));
    fs::create_directories(path("stopped"));
    fs::copy(checkpoint_folder(path("whole"), 2), checkpoint_folder(path("stopped"), 2));
    train(frozen(), with({output("stopped"), "max_steps=4", "resume_from_checkpoint=auto"}));
    EXPECT_TRUE(model_of(path("stopped")) == model_of(path("whole")));
}

TEST_F(FreezeRun, RefusesACheckpointOfAnotherBaseOrOtherLayers) {
    train(frozen(), {output("run"), "max_steps=2"});
    const auto refused = [&](const std::vector<std::string>& changes, const std::string& message) {
        std::vector<std::string> arguments = {output("run"), "max_steps=3", "resume_from_checkpoint=auto"};
        arguments.insert(arguments.end(), changes.begin(), changes.end());
        expect_error(Exit::data, message, [&] { train(frozen(), arguments); });
    };
    refused({"finetuning_type=full"},
            "the checkpoint is of a run with finetuning_type freeze; this run has finetuning_type full");
    refused({"freeze_trainable_layers=2"}, "other layers were trained: ");
    refused({"freeze_trainable_layers=-1"}, "other layers were trained: ");
    refused({"optim=adamw"},
            "'adamw/m' is u8, expected f32; the state of another optimizer? Resume with the same optim");
    train(config(), {output("other"), "max_steps=5", "learning_rate=0.01", "save_strategy=no"});
    refused({"model_name_or_path=" + path("other")}, "the frozen weights are others than those of model_name_or_path");
    expect_error(Exit::config, "output_dir " + path("base") + " is the folder of the base model", [&] {
        train(frozen(), {output("base"), "overwrite_output_dir=true"});
    });
}

}  // namespace
}  // namespace colonnade
