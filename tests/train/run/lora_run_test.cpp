// LoRA runs from a user's view: the files they write, resuming, and the combinations that are errors.

#include "engine/io/safetensors.h"
#include "tests/support/tiny_run.h"
#include "train/folders/adapter_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class LoraRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        train(config(), {output("base"), "max_steps=4", "learning_rate=0.01", "save_strategy=no"});
        write_lora_config("lora_dropout: 0.1\n");
    }
    void write_lora_config(const std::string& settings) const {
        spill(
            path("lora.yaml"),
            fmt::format("model_name_or_path: {}\nfinetuning_type: lora\nlora_rank: 4\n"
                        "datasets: [{{path: {}}}]\nmax_length: 48\npacking_length: 64\nprepared_path: {}\nthreads: 1\n"
                        "report_to: [jsonl]\nper_device_train_batch_size: 2\ngradient_accumulation_steps: 2\n"
                        "num_train_epochs: 1\nlearning_rate: 0.01\nweight_decay: 0.1\nval_size: 20\neval_steps: 4\n"
                        "save_steps: 1\nsave_total_limit: 0\n{}",
                        path("base"), path("train.jsonl"), path("prepared"), settings));
    }
    std::string lora() const { return path("lora.yaml"); }
    std::string checkpoint(const std::string& run, int64_t step) const { return checkpoint_folder(path(run), step); }
    int64_t last_step(const std::string& run) const { return checkpoint_steps(path(run)).back(); }
    std::string state_of(const std::string& run) const {
        return slurp(checkpoint(run, last_step(run)) + "/state-00001-of-00001.h5");
    }
    std::string adapter_of(const std::string& folder) const { return slurp(folder + "/adapter_model.safetensors"); }
    double eval_loss(const std::string& run, bool first) const {
        std::vector<double> losses;
        for (const Json& line : read_log(path(run)))
            if (line.contains("eval_loss")) losses.push_back(line.at("eval_loss"));
        return first ? losses.at(0) : losses.back();
    }
};

TEST_F(LoraRun, LearnsAndWritesAdaptersInsteadOfAModel) {
    const std::string base = slurp(path("base") + "/model.safetensors");
    const std::string printed = train(lora(), {output("run"), "num_train_epochs=4", "learning_rate=0.03",
                                               "save_steps=10", "eval_on_start=true", "export_merged=true"});
    EXPECT_NE(printed.find("rank 4, scale 2, on down_proj"), std::string::npos) << printed;
    EXPECT_NE(printed.find("the model stays frozen"), std::string::npos);
    EXPECT_LT(eval_loss("run", false), eval_loss("run", true) - 0.05);  // only a little: embedding and head are random
    EXPECT_EQ(slurp(path("base") + "/model.safetensors"), base);
    EXPECT_TRUE(is_adapter_folder(path("run")));
    EXPECT_FALSE(fs::exists(path("run") + "/config.json"));
    EXPECT_FALSE(fs::exists(path("run") + "/model.safetensors"));
    const AdapterConfig written = read_adapter_config(path("run"));
    EXPECT_EQ(written.base, path("base"));
    EXPECT_EQ(written.lora.rank, 4);
    EXPECT_EQ(written.lora.alpha, 8);
    EXPECT_EQ(written.lora.dropout, 0.1);
    // The newest checkpoint contains the same adapters.
    EXPECT_EQ(adapter_of(checkpoint("run", last_step("run"))), adapter_of(path("run")));

    // Both the merged model and the adapters on their base continue where the run ended.
    train(lora(), {output("merged"), "model_name_or_path=" + path("run") + "/merged", "num_train_epochs=0",
                   "max_steps=1", "eval_on_start=true"});
    EXPECT_NEAR(eval_loss("merged", true), eval_loss("run", false), 1e-5);
    train(lora(), {output("on"), "adapter_name_or_path=" + path("run"), "num_train_epochs=0", "max_steps=1",
                   "eval_on_start=true"});
    EXPECT_EQ(eval_loss("on", true), eval_loss("run", false));

    // The folder rejects a second run, as a folder with a model does.
    for (const int64_t step : checkpoint_steps(path("run"))) fs::remove_all(checkpoint("run", step));
    expect_error(Exit::config, "already contains a model", [&] { train(lora(), {output("run")}); });
}

TEST_F(LoraRun, ResumesBitForBitWithDropout) {
    train(lora(), {output("unbroken")});
    const int64_t last = last_step("unbroken");
    ASSERT_GE(last, 8);
    for (const int64_t stop : {int64_t{1}, last / 2, last - 1}) {
        for (const char* recompute : {"none", "block"}) {
            const std::string name = fmt::format("stopped-{}-{}", stop, recompute);
            fs::create_directories(path(name));
            fs::copy(checkpoint("unbroken", stop), checkpoint(name, stop));
            train(lora(), {output(name), "resume_from_checkpoint=auto", "save_steps=1000",
                           std::string("gradient_checkpointing=") + recompute});
            EXPECT_TRUE(state_of(name) == state_of("unbroken")) << name;
            EXPECT_TRUE(adapter_of(path(name)) == adapter_of(path("unbroken"))) << name;
        }
    }
    train(lora(), {output("other"), "lora_dropout=0.2"});
    EXPECT_FALSE(state_of("other") == state_of("unbroken"));
}

TEST_F(LoraRun, ABaseInFourBitsLearnsAndResumes) {
    const auto run = [&](const char* name, std::vector<std::string> more = {}) {
        more.insert(more.end(), {output(name), "learning_rate=0.03", "base_quantization=nf4", "num_train_epochs=2",
                                 "eval_on_start=true", "eval_table_size=2", "eval_max_new_tokens=5"});
        return train(lora(), more);
    };
    const std::string printed = run("run", {"export_merged=true"});
    EXPECT_NE(printed.find("the model stays frozen, its linear layers in nf4"), std::string::npos) << printed;
    EXPECT_LT(eval_loss("run", false), eval_loss("run", true) - 0.02);
    const int64_t last = last_step("run"), stop = last / 2;
    fs::create_directories(path("stopped"));
    fs::copy(checkpoint("run", stop), checkpoint("stopped", stop));
    run("stopped", {"resume_from_checkpoint=auto"});
    EXPECT_TRUE(state_of("stopped") == state_of("run"));
    // The adapters fit the base as it is, and so does what was merged into it.
    train(lora(), {output("on"), "adapter_name_or_path=" + path("run"), "num_train_epochs=0", "max_steps=1",
                   "eval_on_start=true"});
    EXPECT_NEAR(eval_loss("on", true), eval_loss("run", false), 0.05);
    EXPECT_NE(eval_loss("on", true), eval_loss("run", false));
    train(lora(), {output("merged"), "model_name_or_path=" + path("run") + "/merged", "num_train_epochs=0",
                   "max_steps=1", "eval_on_start=true"});
    EXPECT_NEAR(eval_loss("merged", true), eval_loss("on", true), 1e-5);
}

TEST_F(LoraRun, RefusesACheckpointOfOtherAdaptersOrAnotherBase) {
    train(lora(), {output("run"), "num_train_epochs=0", "max_steps=2"});
    const auto refused = [&](const std::vector<std::string>& changes, const std::string& message) {
        std::vector<std::string> arguments = {output("run"), "num_train_epochs=0", "max_steps=2",
                                              "resume_from_checkpoint=auto"};
        arguments.insert(arguments.end(), changes.begin(), changes.end());
        expect_error(Exit::data, message, [&] { train(lora(), arguments); });
    };
    refused({"lora_rank=8"}, "trainer_state.json: the adapters have rank 4, but this run has 8");
    refused({"lora_alpha=16"}, "the adapters have alpha 8.0, but this run has 16.0");
    refused({"lora_target=q_proj"}, "but this run has [\"q_proj\"]");
    refused({"use_rslora=true"}, "the adapters have use_rslora false, but this run has true");
    refused({"base_quantization=nf4"}, "the adapters have base_quantization \"none\", but this run has \"nf4\"");
    refused({"finetuning_type=full", "lora_rank=0", "lora_dropout=0"},
            "the checkpoint is of a run with finetuning_type lora; this run has finetuning_type full");
    train(config(), {output("other-base"), "max_steps=5", "learning_rate=0.01", "save_strategy=no"});
    refused({"model_name_or_path=" + path("other-base")}, "the adapters belong to another base model (SHA-256 ");
}

TEST_F(LoraRun, AdaptersBringTheirSettings) {
    train(lora(), {output("run"), "num_train_epochs=0", "max_steps=1", "lora_target=q_proj,down_proj",
                   "use_rslora=true", "lora_alpha=3"});
    write_config();  // no lora_rank
    spill(path("open.yaml"), fmt::format("model_name_or_path: {}\nfinetuning_type: lora\nadapter_name_or_path: {}\n"
                                         "datasets: [{{path: {}}}]\nmax_length: 48\nprepared_path: {}\nthreads: 1\n"
                                         "report_to: [jsonl]\nmax_steps: 1\n",
                                         path("base"), path("run"), path("train.jsonl"), path("prepared")));
    train(path("open.yaml"), {output("on")});
    const LoraSettings found = read_adapter_config(path("on")).lora;
    EXPECT_EQ(found, (LoraSettings{.rank = 4, .alpha = 3, .rslora = true, .targets = {"down_proj", "q_proj"}}));
    const std::pair<const char*, const char*> contradictions[] = {
        {"lora_rank=5", "lora_rank 5, but the adapters of "},
        {"lora_alpha=5", "have 3"},
        {"lora_target=o_proj", "lora_target {\"o_proj\"}, but the adapters of "}};
    for (const auto& [key, message] : contradictions)
        expect_error(Exit::config, message, [&] { train(path("open.yaml"), {output("x"), key}); });
    expect_error(Exit::data, "not a folder of adapters", [&] {
        train(path("open.yaml"), {output("x"), "adapter_name_or_path=" + path("base")});
    });
}

TEST_F(LoraRun, ExportsCheckpointsMergedOrAsAdapters) {
    train(lora(), {output("run"), "num_train_epochs=0", "max_steps=2", "export_merged=true"});
    const std::string from = checkpoint("run", 2);
    const auto merged = run("export", {from, path("merged")});
    EXPECT_EQ(merged.exit, 0) << merged.err;
    EXPECT_NE(merged.out.find("step 2"), std::string::npos) << merged.out;
    EXPECT_TRUE(slurp(path("merged") + "/model.safetensors") == slurp(path("run") + "/merged/model.safetensors"));
    EXPECT_FALSE(slurp(path("merged") + "/model.safetensors") == slurp(path("base") + "/model.safetensors"));
    EXPECT_EQ(run("export", {from, path("half"), "--dtype", "bfloat16"}).exit, 0);
    EXPECT_EQ(SafetensorsReader(path("half")).tensors().front().stored, "BF16");
    EXPECT_EQ(run("export", {from, path("adapter"), "--adapter"}).exit, 0);
    EXPECT_TRUE(adapter_of(path("adapter")) == adapter_of(path("run")));
    EXPECT_TRUE(is_adapter_folder(path("adapter")));

    fs::rename(path("base"), path("moved"));
    const auto lost = run("export", {from, path("lost")});
    EXPECT_EQ(lost.exit, static_cast<int>(Exit::data)) << lost.err;
    EXPECT_EQ(run("export", {from, path("found"), "--base", path("moved")}).exit, 0);
    EXPECT_TRUE(slurp(path("merged") + "/model.safetensors") == slurp(path("found") + "/model.safetensors"));
    EXPECT_EQ(run("export", {from, path("found")}).exit, static_cast<int>(Exit::config)) << "it contains a model";
}

TEST_F(LoraRun, TrainsTheHeadToo) {
    train(lora(), {output("run"), "num_train_epochs=0", "max_steps=2", "modules_to_save=lm_head", "eval_on_start=true",
                   "export_merged=true"});
    EXPECT_TRUE(read_adapter_config(path("run")).lora.head);
    const SafetensorsReader reader(path("run") + "/adapter_model.safetensors");
    ASSERT_TRUE(reader.find("base_model.model.lm_head.weight"));
    // Without modules_to_save in the config, the adapters set it.
    train(lora(), {output("on"), "adapter_name_or_path=" + path("run"), "num_train_epochs=0", "max_steps=1",
                   "eval_on_start=true"});
    EXPECT_EQ(eval_loss("on", true), eval_loss("run", false));
    train(lora(), {output("merged"), "model_name_or_path=" + path("run") + "/merged", "num_train_epochs=0",
                   "max_steps=1", "eval_on_start=true"});
    EXPECT_NEAR(eval_loss("merged", true), eval_loss("run", false), 1e-5);
    EXPECT_LT(eval_loss("run", false), eval_loss("run", true));
    train(config(), {output("tied"), "model.tie_word_embeddings=true", "max_steps=1", "save_strategy=no"});
    expect_error(Exit::config, "modules_to_save lm_head: the head of ", [&] {
        train(lora(), {output("x"), "model_name_or_path=" + path("tied"), "modules_to_save=lm_head"});
    });
}

TEST_F(LoraRun, NeverTrainsIntoTheFolderOfItsBase) {
    const std::string before = listing(path("base"));
    expect_error(Exit::config, "is the folder of the base model", [&] {
        train(lora(), {output("base"), "overwrite_output_dir=true"});
    });
    EXPECT_EQ(listing(path("base")), before);
}

TEST_F(LoraRun, PretrainsToo) {
    spill(path("text.jsonl"), chain_rows(40, 3));
    train(lora(), {output("run"), "stage=pt", "document_mask=false", "num_train_epochs=0", "max_steps=2",
                   "datasets[0].path=" + path("text.jsonl")});
    EXPECT_TRUE(is_adapter_folder(path("run")));
}

}  // namespace
}  // namespace colonnade
