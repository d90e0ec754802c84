#include "train/run/run_model.h"

#include <algorithm>
#include <filesystem>

#include <fmt/ranges.h>

#include "data/text/choose_template.h"
#include "engine/io/gguf.h"
#include "train/config/spellings.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

bool all_pretokenised(const Config& config) {
    const auto pretokenised = [&](const DatasetSpec& spec) {
        return RowReader(spec, config.rows()).type() == "tokens";
    };
    return std::all_of(config.datasets.begin(), config.datasets.end(), pretokenised) &&
           std::all_of(config.eval_datasets.begin(), config.eval_datasets.end(), pretokenised);
}

ChatTemplate::Settings template_settings(const Config& config) {
    return {.variables = config.chat_template_kwargs, .clock = *chat_template_clock(config)};
}

/// The ids that export writes into the config.json of a new model.
void set_token_ids(ModelConfig& model, const Tokenizer& tokenizer) {
    model.bos_token_id = tokenizer.bos().value_or(-1);
    model.pad_token_id = tokenizer.pad().value_or(-1);
    if (const auto eos = tokenizer.eos()) model.eos_token_ids = {*eos};
}

ModelConfig model_of_shape(ModelShape shape, const Tokenizer* tokenizer) {
    if (shape.vocab_size == 0 && tokenizer) shape.vocab_size = tokenizer->vocab_size();
    if (shape.vocab_size == 0) fail(Exit::config, "model: model.vocab_size is required if there is no tokenizer");
    ModelConfig model = model_of(shape, "model");
    if (tokenizer) set_token_ids(model, *tokenizer);
    return model;
}

/// Gives the model the rows and the ids of the config's tokens.
void take_tokens(const Config& c, const TextFolder& text, ModelConfig& model) {
    const Tokenizer& tokenizer = *text.tokenizer;
    for (const auto& [role, token] : c.special_tokens) {
        const int64_t id = tokenizer.piece_id(token).value_or(-1);
        if (role == "bos_token") model.bos_token_id = id;
        if (role == "pad_token") model.pad_token_id = id;
        if (role == "eos_token") model.eos_token_ids = {id};
    }
    int64_t rows = model.vocab_size;
    if (!text.added.empty()) rows = std::max<int64_t>(rows, tokenizer.vocab_size());
    const int64_t multiple = c.pad_vocab_to_multiple_of;
    rows = (rows + multiple - 1) / multiple * multiple;
    const bool grows = rows > model.vocab_size;
    if (grows)
        model.notices.push_back(fmt::format(
            "{} from {} to {} rows; new rows are the mean of the others",
            model.tie_word_embeddings ? "the embedding grows" : "embedding and head grow", model.vocab_size, rows));
    model.vocab_size = rows;
    if ((text.added.empty() && !grows) || c.finetuning_type == Finetuning::full) return;
    const char* const frozen = "new rows of the embedding need training, but {} keeps {} frozen: {}";
    if (c.finetuning_type == Finetuning::lora)
        fail(
            Exit::config, fmt::runtime(frozen), "finetuning_type lora", "the embedding",
            "use finetuning_type full, or finetuning_type freeze with freeze_extra_modules [embed_tokens, lm_head]; or "
            "give tokens that the tokenizer has, as roles in special_tokens");
    const ParameterList trained = split_parameters(model, *freeze_settings(c)).trained;
    for (const auto& [role, name] : {std::pair(Role::embedding, "embed_tokens"), {Role::lm_head, "lm_head"}})
        if (!trained.find(role) && ParameterList(model).find(role) && (c.stage != Stage::rm || role != Role::lm_head))
            fail(Exit::config, fmt::runtime(frozen), "finetuning_type freeze", name,
                 fmt::format("add {} to freeze_extra_modules", name));
}

std::string template_notice(const Config& config, const TextFolder& folder, const ChatTemplate& chosen) {
    if (chosen.is_of_model()) return fmt::format("the chat template is the model's own, {}", chosen.name());
    const std::string name = fmt::format("{}{}", chosen.is_built_in() ? "the built-in " : "", chosen.name());
    if (config.chat_template == own_template)
        return fmt::format("{} has no chat template; chats are rendered by {} (chat_template chooses another)",
                           config.tokenizer_name_or_path, name);
    if (folder.templates.empty()) return fmt::format("the chat template is {}", name);
    return fmt::format("the chat template is {}; it replaces that of {}, in what is exported, too", name,
                       folder.templates.front().file);
}

}  // namespace

RunText load_text(const Config& config) {
    const std::string& path = config.tokenizer_name_or_path;
    const TokenAdditions additions = token_additions(config);
    if (!additions.empty() && (path.empty() || !has_tokenizer(path)))
        fail(Exit::config,
             "special_tokens, add_special_tokens and add_tokens need a tokenizer: give tokenizer_name_or_path");
    if (path.empty() || (!has_tokenizer(path) && all_pretokenised(config))) return {};
    if (additions.empty() && is_gguf_file(path) && all_pretokenised(config))
        return {};  // its tokenizer may be of an unknown kind
    RunText text{.folder = read_text_folder(path, additions)};
    text.chat_template = choose_template(text.folder, config.chat_template, template_settings(config));
    text.notices = text.folder.notices;
    text.notices.push_back(fmt::format("the tokenizer is that of {}", text.folder.tokenizer->path()));
    if (!text.folder.added.empty())
        text.notices.push_back(fmt::format("the tokenizer gets {} token{}, ids from {} on: {}",
                                           text.folder.added.size(), text.folder.added.size() == 1 ? "" : "s",
                                           text.folder.tokenizer->vocab_size() - std::ssize(text.folder.added),
                                           fmt::join(text.folder.added, " ")));
    text.notices.push_back(template_notice(config, text.folder, *text.chat_template));
    return text;
}

std::vector<std::shared_ptr<const ChatTemplate>> chat_templates(const Config& config, const RunText& text,
                                                                const std::vector<DatasetSpec>& datasets) {
    std::vector<std::shared_ptr<const ChatTemplate>> templates(datasets.size());
    for (size_t i = 0; i < datasets.size(); ++i)
        if (text.folder.tokenizer && !datasets[i].chat_template.empty())
            templates[i] = choose_template(text.folder, datasets[i].chat_template, template_settings(config));
    return templates;
}

std::shared_ptr<const Encoder> make_encoder(const Config& config, const RunText& text, int64_t vocab_size) {
    EncodeOptions options = encode_options(config, vocab_size);
    options.chat_template = text.chat_template;
    options.end_ids = text.folder.end_ids;
    return std::make_shared<const Encoder>(text.folder.tokenizer, std::move(options));
}

ModelConfig model_of_run(const Config& c, const TextFolder& text) {
    const Tokenizer* const tokenizer = text.tokenizer.get();
    ModelConfig model = c.model ? model_of_shape(*c.model, tokenizer) : read_model_config(c.model_name_or_path);
    if (model.score_head && c.stage != Stage::rm)
        fail(Exit::config, "{} contains a reward model, which only stage rm trains; stage {} needs a language model",
             c.model_name_or_path, spell(c.stage));
    std::error_code missing;
    if (c.finetuning_type != Finetuning::full && fs::equivalent(c.output_dir, c.model_name_or_path, missing))
        fail(Exit::config, "output_dir {} is the folder of the base model, which must stay as it is: choose another",
             c.output_dir);
    if (c.modules_to_save.contains("lm_head") && model.tie_word_embeddings)
        fail(Exit::config, "modules_to_save lm_head: the head of {} is tied to its embedding, which stays frozen",
             c.model_name_or_path);
    if (tokenizer) take_tokens(c, text, model);
    if (tokenizer && tokenizer->vocab_size() > model.vocab_size)
        fail(Exit::data, "{}: the tokenizer has {} pieces, the model embeds only {}", tokenizer->path(),
             tokenizer->vocab_size(), model.vocab_size);
    return model;
}

int64_t reward_pad_token(const ModelConfig& model, const Encoder& encoder) {
    std::vector<int64_t> ends = model.eos_token_ids, candidates = {model.pad_token_id};
    if (const auto& tokenizer = encoder.tokenizer()) {
        for (const int32_t id : encoder.stop_ids()) ends.push_back(id);
        if (const auto eos = tokenizer->eos()) ends.push_back(*eos);
        candidates.push_back(tokenizer->pad().value_or(-1));
        candidates.push_back(tokenizer->unk().value_or(-1));
    }
    for (int64_t id = 0; id < model.vocab_size; ++id) candidates.push_back(id);
    const auto fits = [&](int64_t id) { return id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end(); };
    return *std::find_if(candidates.begin(), candidates.end(), fits);
}

}  // namespace colonnade
