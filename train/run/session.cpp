#include "train/run/session.h"

#include <fmt/ranges.h>
#include <omp.h>

#include "attention/flashmask.h"
#include "data/text/text_folder.h"
#include "engine/io/gguf.h"
#include "engine/io/sha256.h"
#include "train/config/spellings.h"
#include "train/folders/adapter_folder.h"
#include "train/objectives/reward_objective.h"
#include "train/run/given_logps.h"
#include "train/run/labelled_answers.h"
#include "train/run/local_names.h"
#include "train/run/run_model.h"
#include "train/run/session_fit.h"
#include "train/run/shared_prefixes.h"
#include "train/run/split_store.h"
#include "train/run/stage_objective.h"
#include "train/run/weigh_store.h"

namespace colonnade {
namespace {

StoreResult build_split(const Session& s, const std::string& name, const std::vector<DatasetSpec>& datasets,
                        const Ranks& ranks) {
    StoreRequest request;
    request.name = name;
    request.folder = s.config.prepared_path;
    request.datasets = datasets;
    request.chat_templates = chat_templates(s.config, s.text, datasets);
    request.rows = s.config.rows();
    request.tokenizer = s.encoder->tokenizer();
    request.encode = s.encoder->options();
    request.rewards = reward_settings(s.config);
    request.threads = s.config.dataset_num_proc ? static_cast<int>(s.config.dataset_num_proc) : omp_get_max_threads();
    if (!ranks.first()) request.progress.write = [](std::string_view) {};
    StoreResult result;
    ranks.in_turn("the data of " + name, [&] { result = build_store(request); });
    return result;
}

/// Noise is of every sequence by its own length: divides the turns of chats into samples of their own.
void divide_for_noise(Session& s, TokenStore& store) {
    if (s.config.neftune_noise_alpha == 0) return;
    int64_t divided = 0;
    std::vector<std::vector<Sample>> parts;
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        if (sample.sequences.size() == 1) continue;
        parts.resize(static_cast<size_t>(store.size()));
        parts[static_cast<size_t>(i)] = split_sample(sample, [](const Sample&) { return false; });
        ++divided;
    }
    if (divided == 0) return;
    store = store.divided(parts);
    s.notices.push_back(fmt::format(
        "neftune_noise_alpha draws noise for each turn by its length: the turns of {} chats repeat what they have in "
        "common",
        divided));
}

/// What rows say about their pairs has to fit the loss of the stage.
void check_pairs(Session& s, const TokenStore& store, const std::string& name) {
    const bool ranked = s.config.stage == Stage::rm && s.config.reward_loss == RankingKind::plackett_luce;
    if (s.config.stage != Stage::dpo && !ranked) return;
    int64_t margins = 0;
    for (int64_t i = 0; i < store.size(); ++i) {
        const Sample sample = store.sample(i);
        margins += std::ranges::count_if(sample.pairs, [](const AnswerPair& pair) { return pair.margin != 0; });
        if (!ranked) continue;
        try {
            require_ranking(sample.pairs, std::ssize(sample.sequences));
        } catch (const Error& e) {
            fail(Exit::data, "{}: {}", store.place(i), e.what());
        }
    }
    if (margins > 0)
        s.notices.push_back(fmt::format("{} pairs of {} have a margin, which no loss of stage dpo reads: stage rm does",
                                        margins, name));
}

/// With adapter_name_or_path: takes rank, alpha and targets from that folder. Throws Exit::config if the config
/// contradicts them or if they do not adapt a model of the stage.
void settle_adapter(Config& c) {
    const std::string& folder = c.adapter_name_or_path;
    if (folder.empty()) return;
    const AdapterConfig adapters = read_adapter_config(folder);
    const LoraSettings& found = adapters.lora;
    if (adapters.score_head != (c.stage == Stage::rm))
        fail(Exit::config,
             "adapter_name_or_path {} contains adapters of a {} model, stage {} continues those of a {} model", folder,
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

/// The GPU kernels of attention do not support every head_dim: falls back to the CPU unless the config asks for a GPU.
void require_attention_kernel(Session& s, const Config& given, const Ranks& ranks) {
    const int64_t head_dim = s.model.head_dim;
    if (flashmask_runs(s.device, head_dim)) return;
    if (given.device == DeviceChoice::cuda)
        fail(Exit::config,
             "device: cuda, but attention has no GPU kernel for head_dim {} (64, 96, 128, 256); use device: cpu",
             head_dim);
    auto special_tokens = std::move(s.config.special_tokens);  // see leave_out_pad_token()
    s.config = given;
    s.config.special_tokens = std::move(special_tokens);
    s.config.device = DeviceChoice::cpu;
    s.device = settle_machine(s.config, ranks);
    settle_adapter(s.config);
    s.notices.push_back(
        fmt::format("device: cpu, because attention has no GPU kernel for head_dim {} (64, 96, 128, 256)", head_dim));
}

void add_score_head(Session& s) {
    s.model.score_head = true;
    s.model.pad_token_id = reward_pad_token(s.model, *s.encoder);
    s.notices.push_back(
        fmt::format("the reward model's pad_token_id is {}, which ends no answer", s.model.pad_token_id));
}

/// Applies the weights of the data sets, and says what they do. Returns what they add to a key.
std::string weigh(Session& s, StoreResult& result, const std::vector<DatasetSpec>& datasets) {
    std::string key;
    for (const DatasetSpec& set : datasets)
        if (set.weight != 1) key += fmt::format(" {} of {}", set.weight, set.path);
    if (key.empty()) return key;
    const int64_t before = result.store.size();
    result.store = weigh_store(std::move(result.store), datasets, static_cast<uint64_t>(s.config.data_seed));
    s.notices.push_back(fmt::format("weights{}: {} samples become {}", key, before, result.store.size()));
    return fmt::format(" weights{} seed {}", key, s.config.data_seed);
}

/// A teacher's lists nearly always hold the token that the text has, unless they are those of another place.
void check_teacher(Session& s) {
    const TeacherCounts& teacher = s.train.store.statistics.teacher;
    const double held =
        static_cast<double>(teacher.holding) / static_cast<double>(std::max<int64_t>(teacher.tokens, 1));
    if (teacher.tokens > 0 && held < 0.5)
        s.notices.push_back(fmt::format(
            "warning: only {:.1f} % of the teacher's lists hold the token that the text has in their place; are "
            "they shifted by one, or of another tokenizer? Entry i is about token i, given those before it",
            100 * held));
}

void open_data(Session& s, const Ranks& ranks) {
    const Config& c = s.config;
    s.train = build_split(s, "train", c.datasets, ranks);
    s.data_key = s.train.key;
    if (!c.eval_datasets.empty()) {
        s.eval = build_split(s, "eval", c.eval_datasets, ranks);
    } else if (c.val_size > 0) {
        auto [train, eval] = split_store(s.train.store, c.val_size, static_cast<uint64_t>(c.data_seed));
        s.train.store = std::move(train);
        s.eval.store = std::move(eval);
        s.eval.teacher = s.train.teacher;
        s.data_key = sha256(fmt::format("{} val_size {} seed {}", s.data_key, c.val_size, c.data_seed));
    }
    // The held-out part of val_size has every sample once.
    s.data_key += weigh(s, s.train, c.datasets);
    if (!c.eval_datasets.empty()) s.eval.key += weigh(s, s.eval, c.eval_datasets);
    check_pairs(s, s.train.store, "train");
    check_pairs(s, s.eval.store, "eval");
    divide_for_noise(s, s.train.store);
    divide_for_noise(s, s.eval.store);
    settle_labelled_answers(s);
    check_teacher(s);
}

/// With org/name instead of the paths in the cache of a hub, which are long.
std::string with_names(std::string text, const Config& config) {
    for (const auto& [path, name] : config.hub_names)
        for (size_t at = 0; (at = text.find(path, at)) != text.npos;)
            text.replace(at, path.size(), name, 0, name.find('@'));
    return text;
}

/// With adapters the embedding stays as it is, and packing leaves no padding: a pad token that the tokenizer lacks, as
/// configs for other trainers name one, is left out.
void leave_out_pad_token(Session& s) {
    Config& c = s.config;
    const auto pad = c.special_tokens.find("pad_token");
    if (c.finetuning_type != Finetuning::lora || pad == c.special_tokens.end() ||
        !has_tokenizer(c.tokenizer_name_or_path) ||
        read_text_folder(c.tokenizer_name_or_path).tokenizer->piece_id(pad->second))
        return;
    s.notices.push_back(
        fmt::format("special_tokens: the tokenizer has no {}; with adapters the embedding does not grow, and packing "
                    "leaves no padding: pad_token is left out",
                    pad->second));
    c.special_tokens.erase(pad);
}

}  // namespace

Session open_session(const LoadedConfig& loaded, const Ranks& ranks, SessionUse use) {
    Session s{.config = loaded.config, .given = loaded.given, .notices = loaded.notices};
    require_metric(s.config);
    for (std::string& notice : resolve_names(s.config, ranks))  // the same for a model and its tokenizer
        if (s.notices.empty() || s.notices.back() != notice) s.notices.push_back(std::move(notice));
    const size_t told = s.notices.size();  // what the names stand for
    const Config given = s.config;
    s.device = settle_machine(s.config, ranks, use);
    settle_adapter(s.config);
    for (const std::string& folder : {s.config.model_name_or_path, s.config.tokenizer_name_or_path})
        check_exported_files(folder);
    leave_out_pad_token(s);
    s.text = load_text(s.config);
    s.notices.insert(s.notices.end(), s.text.notices.begin(), s.text.notices.end());
    s.model = model_of_run(s.config, s.text.folder);
    s.notices.insert(s.notices.end(), s.model.notices.begin(), s.model.notices.end());
    if (s.config.finetuning_type == Finetuning::lora && is_gguf_file(s.config.model_name_or_path))
        s.notices.push_back(
            fmt::format("PEFT cannot load adapters of {}; export_merged: true, or export, writes a whole "
                        "model",
                        s.config.model_name_or_path));
    require_attention_kernel(s, given, ranks);
    for (const auto& [key, used] : {std::pair("offload_activations", s.config.offload_activations.count > 0),
                                    {"offload_weights", s.config.offload_weights.count > 0},
                                    {"offload_optimizer", s.config.offload_optimizer.value > 0}})
        if (s.device == Device::cpu && used)
            s.notices.push_back(fmt::format("{} has no effect on the CPU, whose memory is the host's", key));
    if (s.device == Device::cpu && s.config.gpu_memory.bytes > 0)
        s.notices.push_back("gpu_memory has no effect on the CPU: host_memory bounds its plan");
    s.encoder = make_encoder(s.config, s.text, s.model.vocab_size);
    if (s.config.stage == Stage::rm) add_score_head(s);
    if (s.config.max_length > s.model.max_position_embeddings)
        s.notices.push_back(fmt::format("max_length {} is beyond the model's max_position_embeddings {}",
                                        s.config.max_length, s.model.max_position_embeddings));
    open_data(s, ranks);
    settle_given_logps(s);
    share_prefixes(s);
    fit_session(s, ranks, use);
    for (size_t i = told; i < s.notices.size(); ++i) s.notices[i] = with_names(s.notices[i], s.config);
    return s;
}

}  // namespace colonnade
