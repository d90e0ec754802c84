#include "train/run/session.h"

#include <omp.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <thread>

#include "attention/flashmask.h"
#include "engine/device/arena.h"
#include "engine/device/device.h"
#include "engine/device/philox.h"
#include "engine/io/files.h"
#include "train/config/config_values.h"
#include "train/folders/adapter_folder.h"
#include "train/run/rank_check.h"
#include "train/run/stage_objective.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

ModelConfig model_of_shape(const ModelShape& s, const Tokenizer* tokenizer, const std::string& where) {
    ModelConfig c = family_defaults(s.architecture);
    c.vocab_size = s.vocab_size ? s.vocab_size : (tokenizer ? tokenizer->vocab_size() : 0);
    if (!c.vocab_size) fail(Exit::config, "{}: model.vocab_size is needed where there is no tokenizer", where);
    c.hidden_size = s.hidden_size;
    c.intermediate_size = s.intermediate_size;
    c.num_hidden_layers = s.num_hidden_layers;
    c.num_attention_heads = s.num_attention_heads;
    c.num_key_value_heads = s.num_key_value_heads;
    c.head_dim = s.head_dim;
    c.max_position_embeddings = s.max_position_embeddings;
    c.rope_theta = s.rope_theta;
    c.rms_norm_eps = s.rms_norm_eps;
    c.tie_word_embeddings = s.tie_word_embeddings;
    c.initializer_range = s.initializer_range;
    c.windows.assign(static_cast<size_t>(std::max<int64_t>(s.num_hidden_layers, 0)), s.sliding_window);
    validate(c, where);
    return c;
}

bool all_pretokenised(const Config& config) {
    const auto pretokenised = [&](const DatasetSpec& spec) {
        return RowReader(spec, config.rows()).type() == "tokens";
    };
    return std::all_of(config.datasets.begin(), config.datasets.end(), pretokenised) &&
           std::all_of(config.eval_datasets.begin(), config.eval_datasets.end(), pretokenised);
}

// A model whose tokenizer cannot be read yet still trains on pre-tokenised rows.
std::shared_ptr<const Tokenizer> load_tokenizer(const Config& config) {
    const std::string& path = config.tokenizer_name_or_path;
    if (path.empty()) return nullptr;
    const bool has_model = fs::is_regular_file(path) || fs::exists(path + "/tokenizer.model");
    if (!has_model && all_pretokenised(config)) return nullptr;
    return Tokenizer::load(path);
}

// The ids that export writes into config.json; a model folder brings its own.
void set_token_ids(ModelConfig& model, const Tokenizer& tokenizer) {
    model.bos_token_id = tokenizer.bos().value_or(-1);
    model.pad_token_id = tokenizer.pad().value_or(-1);
    if (const auto eos = tokenizer.eos()) model.eos_token_ids = {*eos};
}

StoreResult build_split(const Session& s, const std::string& name, const std::vector<DatasetSpec>& datasets,
                        const Ranks& ranks) {
    StoreRequest request;
    request.name = name;
    request.folder = s.config.prepared_path;
    request.datasets = datasets;
    request.rows = s.config.rows();
    request.tokenizer = s.encoder->tokenizer();
    request.encode = s.encoder->options();
    request.threads = s.config.dataset_num_proc ? static_cast<int>(s.config.dataset_num_proc) : omp_get_max_threads();
    if (!ranks.first()) request.progress.write = [](std::string_view) {};
    StoreResult result;
    ranks.in_turn("the data of " + name, [&] { result = build_store(request); });
    return result;
}

/// One per core that this rank may use, where no other rank of the machine wants it.
int default_threads(const Ranks& ranks) {
    const int allowed = omp_get_num_procs(), cores = static_cast<int>(std::thread::hardware_concurrency());
    return ranks.several() ? std::max(1, std::min(allowed, cores / ranks.local_size())) : allowed;
}

/// A GPU of its own for every rank: its local rank counts them, unless the launcher shows it only one.
void choose_gpu(Config& config, const std::vector<CudaDevice>& devices, const Ranks& ranks) {
    if (!ranks.several()) return;
    if (config.device_index != 0)
        fail(Exit::config, "device_index {} is for one rank: of several, each takes the GPU of its local rank",
             config.device_index);
    const auto count = static_cast<int>(devices.size());
    config.device_index = count > 0 ? ranks.local_rank() % count : 0;
}

void require_gpu_each(const std::vector<CudaDevice>& devices, const Config& config, const Ranks& ranks) {
    if (!ranks.several()) return;
    const std::vector<std::string> all = ranks.gather("GPUs", devices[static_cast<size_t>(config.device_index)].uuid);
    for (int r = 0; r < ranks.size(); ++r)
        for (int other = 0; other < r; ++other)
            if (all[static_cast<size_t>(r)] == all[static_cast<size_t>(other)])
                fail(Exit::config,
                     "{} and {} would share a GPU: start no more ranks on a machine than it has GPUs ({} here), or set "
                     "device: cpu",
                     ranks.name(other), ranks.name(r), devices.size());
}

/// Rankings that reach beyond a sliding window of the model may be more than a column mask can say: told before the
/// first step. Pairs never are.
void check_windows(const Session& s, const TokenStore& store) {
    int64_t smallest = 0;
    for (const int64_t window : s.model.windows)
        if (window > 0 && (smallest == 0 || window < smallest)) smallest = window;
    if (smallest == 0 || store.statistics.answers == 2 * store.statistics.pairs) return;
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        for (const int64_t window : s.model.windows)
            if (window > 0 && !window_can_be_said(sample.branch_begins, window))
                fail(
                    Exit::config,
                    "stage {}: the model's sliding_window of {} ends within two or more of the {} answers of {}, which "
                    "column masks cannot say; give pairs, or max_length of at most {}",
                    spell(s.config.stage), window, sample.branch_begins.size(), store.place(i), smallest);
    }
}

}  // namespace

std::shared_ptr<const Encoder> make_encoder(const Config& config, int64_t vocab_size) {
    return std::make_shared<const Encoder>(load_tokenizer(config), encode_options(config, vocab_size));
}

LearnerOptions learner_options(const Config& c, const Ranks& ranks, Gpu* gpu, Communicator* communicator) {
    const std::shared_ptr<const Objective> objective = make_objective(c);
    const bool by_base = objective->needs_reference() && !c.precompute_ref_log_probs;
    return {.max_packs = std::max(c.per_device_train_batch_size, c.per_device_eval_batch_size),
            .max_length = c.packing_length,
            .head_chunk = c.head_chunk,
            .moments = c.optim_dtype,
            .recompute = c.gradient_checkpointing,
            .gpu = gpu,
            .seed = static_cast<uint64_t>(c.seed),
            .lora = lora_settings(c),
            .objective = objective,
            .reference = by_base ? Reference::base : Reference::batches,
            .sync = {.communicator = communicator,
                     .ranks = ranks.size(),
                     .rank = ranks.rank(),
                     .zero_stage = c.zero_stage,
                     .wire = c.grad_sync_dtype}};
}

void settle_adapter(Config& c) {
    const std::string& folder = c.adapter_name_or_path;
    if (folder.empty()) return;
    const AdapterConfig adapters = read_adapter_config(folder);
    const LoraSettings& found = adapters.lora;
    if (adapters.score_head != (c.stage == Stage::rm))
        fail(Exit::config,
             "adapter_name_or_path {} holds adapters of a {} model, stage {} goes on with those of a {} model", folder,
             adapters.score_head ? "reward" : "language", spell(c.stage), adapters.score_head ? "language" : "reward");
    const auto adopt = [&](const char* key, auto& value, const auto& of_folder, const auto& unset) {
        if (value != unset && value != of_folder)
            fail(Exit::config, "{} {}, but the adapters of {} have {}", key, value, folder, of_folder);
        value = of_folder;
    };
    adopt("lora_rank", c.lora_rank, found.rank, int64_t{0});
    adopt("lora_alpha", c.lora_alpha, found.alpha, 0.0);
    adopt("use_rslora", c.use_rslora, found.rslora, false);
    const std::set<std::string> none, head = {adapters.score_head ? "score" : "lm_head"};
    adopt("lora_target", c.lora_target, found.targets, none);
    adopt("modules_to_save", c.modules_to_save, found.head ? head : none, none);
}

Device settle_machine(Config& config, const Ranks& ranks) {
    const int threads = config.threads ? static_cast<int>(config.threads) : default_threads(ranks);
    omp_set_num_threads(threads);
    const std::vector<CudaDevice> devices = cuda_devices();
    if (config.device != DeviceChoice::cpu) choose_gpu(config, devices, ranks);
    const auto index = static_cast<size_t>(config.device_index);
    const bool usable = index < devices.size() && devices[index].compute_capability >= 80;
    const Device device = config.device == DeviceChoice::cuda || (config.device == DeviceChoice::automatic && usable)
                              ? Device::cuda
                              : Device::cpu;
    if (device == Device::cuda) {
        if (!built_with_cuda())
            fail(Exit::config,
                 "device: cuda, but this build has no CUDA (nvcc was not found when it was configured); use device: "
                 "cpu");
        if (devices.empty())
            fail(Exit::config, "device: cuda, but this machine has no usable CUDA device; use device: cpu");
        if (index >= devices.size())
            fail(Exit::config, "device_index {}, but this machine has {} CUDA devices", index, devices.size());
        if (!usable)
            fail(Exit::config, "device: cuda, but device {} ({}) is an sm_{}: the kernels need sm_80 or newer", index,
                 devices[index].name, devices[index].compute_capability);
    }
    require_same(ranks, {{"the device", name_of(device)}});
    if (device == Device::cuda) require_gpu_each(devices, config, ranks);
    settle_device(config, device);
    return device;
}

int64_t reward_pad_token(const ModelConfig& model, const Encoder& encoder) {
    std::vector<int64_t> ends = model.eos_token_ids, candidates = {model.pad_token_id};
    if (const auto tokenizer = encoder.tokenizer()) {
        for (const int32_t id : encoder.stop_ids()) ends.push_back(id);
        if (const auto eos = tokenizer->eos()) ends.push_back(*eos);
        candidates.push_back(tokenizer->pad().value_or(-1));
        candidates.push_back(tokenizer->unk().value_or(-1));
    }
    for (int64_t id = 0; id < model.vocab_size; ++id) candidates.push_back(id);
    const auto fits = [&](int64_t id) { return id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end(); };
    return *std::find_if(candidates.begin(), candidates.end(), fits);
}

std::string device_text(const Session& session) {
    if (session.device == Device::cpu) return "CPU";
    const CudaDevice device = cuda_devices().at(static_cast<size_t>(session.config.device_index));
    return fmt::format("GPU ({}, {})", device.name, human_bytes(device.memory_bytes));
}

std::pair<TokenStore, TokenStore> split_store(const TokenStore& all, double val_size, uint64_t seed) {
    const int64_t n = all.size();
    const auto wanted =
        static_cast<int64_t>(val_size < 1 ? std::llround(val_size * static_cast<double>(n)) : std::llround(val_size));
    const int64_t count = std::max<int64_t>(wanted, 1);
    if (count >= n) fail(Exit::config, "val_size takes {} of {} samples: nothing is left to train on", count, n);
    constexpr uint64_t split_stream = 0x5917;
    const Philox random{seed, split_stream};
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        const uint64_t x = random.bits(static_cast<uint64_t>(a)), y = random.bits(static_cast<uint64_t>(b));
        return x != y ? x < y : a < b;
    });
    std::vector<bool> held_out(static_cast<size_t>(n));
    for (int64_t i = 0; i < count; ++i) held_out[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;
    return {all.subset([&](int64_t i) { return !held_out[static_cast<size_t>(i)]; }),
            all.subset([&](int64_t i) { return held_out[static_cast<size_t>(i)]; })};
}

Session open_session(const LoadedConfig& loaded, const Ranks& ranks) {
    Session s;
    s.config = loaded.config;
    s.notices = loaded.notices;
    const Config& c = s.config;
    s.device = settle_machine(s.config, ranks);
    settle_adapter(s.config);
    const auto tokenizer = load_tokenizer(c);
    if (c.model) {
        s.model = model_of_shape(*c.model, tokenizer.get(), "model");
        if (tokenizer) set_token_ids(s.model, *tokenizer);
    } else {
        s.model = read_model_config(c.model_name_or_path);
    }
    if (s.model.score_head && c.stage != Stage::rm)
        fail(Exit::config, "{} holds a reward model: stage rm trains it, stage {} needs a language model",
             c.model_name_or_path, spell(c.stage));
    s.notices.insert(s.notices.end(), s.model.notices.begin(), s.model.notices.end());
    std::error_code missing;
    if (c.finetuning_type == Finetuning::lora && fs::equivalent(c.output_dir, c.model_name_or_path, missing))
        fail(Exit::config, "output_dir {} is the folder of the base model, which must stay as it is: choose another",
             c.output_dir);
    if (s.config.modules_to_save.contains("lm_head") && s.model.tie_word_embeddings)
        fail(Exit::config, "modules_to_save lm_head: the head of {} is its embedding, which stays as it is",
             c.model_name_or_path);
    if (!flashmask_runs(s.device, s.model.head_dim)) {
        if (loaded.config.device == DeviceChoice::cuda)
            fail(Exit::config,
                 "device: cuda, but attention has no GPU kernel for head_dim {} (64, 96, 128, 256); use device: cpu",
                 s.model.head_dim);
        s.config = loaded.config;
        s.config.device = DeviceChoice::cpu;
        s.device = settle_machine(s.config, ranks);
        settle_adapter(s.config);
        s.notices.push_back(fmt::format(
            "device: cpu, as attention has no GPU kernel for head_dim {} (64, 96, 128, 256)", s.model.head_dim));
    }
    if (tokenizer && tokenizer->vocab_size() > s.model.vocab_size)
        fail(Exit::data, "{}: the tokenizer has {} pieces, the model embeds only {}", tokenizer->path(),
             tokenizer->vocab_size(), s.model.vocab_size);
    s.encoder = std::make_shared<const Encoder>(tokenizer, encode_options(c, s.model.vocab_size));
    if (c.stage == Stage::rm) {
        s.model.score_head = true;
        s.model.pad_token_id = reward_pad_token(s.model, *s.encoder);
        s.notices.push_back(
            fmt::format("the reward model's pad_token_id is {}, which ends no answer", s.model.pad_token_id));
    }
    if (c.max_length > s.model.max_position_embeddings)
        s.notices.push_back(fmt::format("max_length {} is beyond the model's max_position_embeddings {}", c.max_length,
                                        s.model.max_position_embeddings));
    s.train = build_split(s, "train", c.datasets, ranks);
    s.data_key = s.train.key;
    if (!c.eval_datasets.empty()) {
        s.eval = build_split(s, "eval", c.eval_datasets, ranks);
    } else if (c.val_size > 0) {
        auto [train, eval] = split_store(s.train.store, c.val_size, static_cast<uint64_t>(c.data_seed));
        s.train.store = std::move(train);
        s.eval.store = std::move(eval);
        s.data_key = sha256(fmt::format("{} val_size {} seed {}", s.data_key, c.val_size, c.data_seed));
    }
    check_windows(s, s.train.store);
    check_windows(s, s.eval.store);
    return s;
}

}  // namespace colonnade
