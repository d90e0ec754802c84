#include "train/model/model_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/io/json_keys.h"
#include "engine/io/limits.h"
#include "engine/io/own_file.h"
#include "train/model/rope_config.h"
#include "train/model/stored_weights.h"

namespace colonnade {
namespace {

constexpr const char* score_class = "ForSequenceClassification";
constexpr int64_t longest = int64_t{1} << 30;  ///< sequence

const ModelFamily& read_family(const JsonKeys& keys) {
    const std::string type = keys.text("model_type", "");
    std::vector<const char*> types;
    for (const ModelFamily& family : model_families) {
        if (type == family.model_type) return family;
        types.push_back(family.model_type);
    }
    fail(Exit::data, "{}: model_type '{}' is not supported; expected one of {}", keys.where(), type,
         fmt::join(types, ", "));
}

// A reward model is a classification model with one label. id2label or num_labels gives the number of labels.
void read_head(const JsonKeys& keys, ModelConfig& c) {
    const Json* classes = keys.find("architectures");
    if (!classes) return;
    if (!classes->is_array()) keys.refuse("architectures", "a list of class names");
    for (const Json& name : *classes)
        c.score_head = c.score_head || (name.is_string() && name.get<std::string>().ends_with(score_class));
    if (!c.score_head) return;
    const Json* labels = keys.find("id2label");
    const int64_t count = labels && labels->is_object() ? std::ssize(*labels) : keys.integer("num_labels", 2);
    if (count != 1)
        fail(Exit::data, "{}: a classifier with {} labels is not supported; a reward model has one", keys.where(),
             count);
}

void read_windows(const JsonKeys& keys, const ModelFamily& family, ModelConfig& c) {
    c.windows.assign(static_cast<size_t>(c.num_hidden_layers), 0);
    const bool listed = family.windows == WindowRule::listed_or_upper;
    if (family.windows == WindowRule::none || keys.is_null("sliding_window")) return;
    if (listed && !keys.boolean("use_sliding_window", false)) return;
    const int64_t window = keys.integer("sliding_window", 4096, {.low = 1, .below = longest + 1});
    const int64_t first = listed ? keys.integer("max_window_layers", 28) : 0;
    const Json* types = listed ? keys.find("layer_types") : nullptr;
    if (types && (!types->is_array() || types->size() != c.windows.size()))
        keys.refuse("layer_types", "a list with an entry per layer");
    for (size_t layer = 0; layer < c.windows.size(); ++layer) {
        bool windowed = static_cast<int64_t>(layer) >= first;
        if (types) {
            const Json& type = (*types)[layer];
            if (type != "sliding_attention" && type != "full_attention")
                fail(Exit::data, "{}: layer_types[{}] is {}; full_attention and sliding_attention are supported",
                     keys.where(), layer, type.dump());
            windowed = type == "sliding_attention";
        }
        c.windows[layer] = windowed ? window : 0;
    }
}

void read_token_ids(const JsonKeys& keys, ModelConfig& c) {
    const JsonRange ids{.low = -1, .below = int64_t{1} << 31};  // -1: none
    c.bos_token_id = keys.integer("bos_token_id", -1, ids);
    c.pad_token_id = keys.integer("pad_token_id", -1, ids);
    if (const Json* eos = keys.find("eos_token_id")) {
        const Json list = eos->is_array() ? *eos : Json::array({*eos});
        for (const Json& id : list) {
            if (!id.is_number_integer() || !ids.holds(id.get<double>()))
                keys.refuse("eos_token_id", "an integer or a list of integers" + ids.text());
            c.eos_token_ids.push_back(id.get<int64_t>());
        }
    }
}

// Keys that are read, and keys that change nothing about a model.
constexpr std::string_view known_keys[] = {"architectures",
                                           "model_type",
                                           "vocab_size",
                                           "hidden_size",
                                           "intermediate_size",
                                           "num_hidden_layers",
                                           "num_attention_heads",
                                           "num_key_value_heads",
                                           "head_dim",
                                           "hidden_act",
                                           "max_position_embeddings",
                                           "rms_norm_eps",
                                           "initializer_range",
                                           "tie_word_embeddings",
                                           "attention_bias",
                                           "mlp_bias",
                                           "attention_dropout",
                                           "rope_theta",
                                           "rope_scaling",
                                           "rope_parameters",
                                           "partial_rotary_factor",
                                           "original_max_position_embeddings",
                                           "bos_token_id",
                                           "eos_token_id",
                                           "pad_token_id",
                                           "unk_token_id",
                                           "id2label",
                                           "label2id",
                                           "num_labels",
                                           "problem_type",
                                           "quantization_config",
                                           "dtype",
                                           "torch_dtype",
                                           "transformers_version",
                                           "use_cache",
                                           "pretraining_tp",
                                           "_name_or_path",
                                           "_attn_implementation",
                                           "is_llama_config",
                                           "transformers.js_config",
                                           "unsloth_version",
                                           "unsloth_fixed",
                                           "model_name",
                                           "return_dict",
                                           "temperature",
                                           "top_p",
                                           "max_length"};
constexpr std::string_view window_keys[] = {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"};

// Names the other keys in one line, such as those of another implementation of the model (auto_map), unless they are
// off.
void note_unused(const Json& json, const ModelFamily& family, const std::string& where, ModelConfig& c) {
    std::vector<std::string> unused;
    const auto known = [](const auto& list, const std::string& key) {
        return std::ranges::find(list, key) != std::end(list);
    };
    for (const auto& [key, value] : json.items()) {
        const bool window = known(window_keys, key);
        const bool is_used = window && (family.windows == WindowRule::listed_or_upper ||
                                        (family.windows == WindowRule::every_layer && key == "sliding_window"));
        const bool all_full = key == "layer_types" && value.is_array() &&
                              std::ranges::all_of(value, [](const Json& type) { return type == "full_attention"; });
        const bool off = value.is_null() || value == false || (value.is_structured() && value.empty());
        if (!off && !is_used && !all_full && !known(known_keys, key)) unused.push_back(key);
    }
    if (!unused.empty()) c.notices.push_back(fmt::format("{}: not used: {}", where, fmt::join(unused, ", ")));
}

}  // namespace

ModelConfig family_defaults(Architecture architecture) {
    const ModelFamily& family = family_of(architecture);
    ModelConfig c;
    c.architecture = architecture;
    c.qkv_bias = family.qkv_bias;
    c.qk_norm = family.qk_norm;
    return c;
}

ModelConfig model_of(const ModelShape& s, const std::string& where) {
    ModelConfig c = family_defaults(s.architecture);
    c.vocab_size = s.vocab_size;
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
    validate(c, where);
    c.windows.assign(static_cast<size_t>(s.num_hidden_layers), s.sliding_window);
    return c;
}

ModelConfig parse_model_config(const Json& json, const std::string& where) {
    const JsonKeys keys(json, where);
    const ModelFamily& family = read_family(keys);
    ModelConfig c = family_defaults(family.architecture);
    if (std::string notice = check_quantization(keys); !notice.empty()) c.notices.push_back(std::move(notice));
    if (const std::string act = keys.text("hidden_act", "silu"); act != "silu")
        fail(Exit::data, "{}: hidden_act '{}' is not supported; silu is", where, act);

    c.vocab_size = keys.integer("vocab_size");
    c.hidden_size = keys.integer("hidden_size");
    c.intermediate_size = keys.integer("intermediate_size");
    c.num_hidden_layers = keys.integer("num_hidden_layers");
    c.num_attention_heads = keys.integer("num_attention_heads");
    c.num_key_value_heads = keys.integer("num_key_value_heads", c.num_attention_heads);
    const int64_t even_share = c.hidden_size / std::max<int64_t>(c.num_attention_heads, 1);
    c.head_dim = keys.integer("head_dim", family.head_dim ? family.head_dim : even_share);
    c.max_position_embeddings = keys.integer("max_position_embeddings", 2048);
    c.rms_norm_eps = keys.number("rms_norm_eps", 1e-6);
    c.initializer_range = keys.number("initializer_range", 0.02);
    c.tie_word_embeddings = keys.boolean("tie_word_embeddings", family.tied);
    const bool attention_bias = keys.boolean("attention_bias", false);
    if (family.attention_bias) c.qkv_bias = c.o_bias = attention_bias;
    c.mlp_bias = family.mlp_bias && keys.boolean("mlp_bias", false);
    read_rope(keys, c);
    validate(c, where, Exit::data);
    try {
        rope_frequencies(c.head_dim, c.rope_theta, c.rope_scaling);  // checks its settings, but knows no file name
    } catch (const Error& e) {
        fail(Exit::data, "{}: {}", where, e.what());
    }
    read_windows(keys, family, c);
    read_token_ids(keys, c);
    read_head(keys, c);
    if (keys.number("attention_dropout", 0.0) != 0)
        c.notices.push_back(fmt::format("{}: attention_dropout is ignored: Colonnade trains without it", where));
    note_unused(json, family, where, c);
    return c;
}

ModelConfig read_model_config(const std::string& path) {
    if (is_gguf_file(path)) return parse_model_config(gguf_config(GgufReader(path)), path);
    const std::string file = path + "/config.json";
    std::error_code unreadable;
    if (!std::filesystem::exists(file, unreadable)) refuse_model_path(path, "no config.json in this folder");
    const JsonLimits limits{.bytes = limits::model_config_bytes, .depth = limits::model_config_depth};
    ModelConfig c = parse_model_config(read_json_file(own_file(path, file), limits), file);
    if (c.tie_word_embeddings && has_stored_weights(path) && StoredWeights(path).head_differs_from_embedding()) {
        c.tie_word_embeddings = false;
        c.notices.push_back(fmt::format(
            "{}: tie_word_embeddings is true, but lm_head.weight differs from the embedding: the head is kept, untied",
            file));
    }
    return c;
}

// The limits keep the number of parameters below 2^57, so that the bytes of no buffer overflow int64_t.
void validate(const ModelConfig& c, const std::string& where, Exit exit) {
    const auto positive = [&](const char* key, int64_t value, int64_t limit) {
        if (value < 1 || value > limit)
            fail(exit, "{}: {} should be between 1 and {}, found {}", where, key, limit, value);
    };
    positive("vocab_size", c.vocab_size, 1 << 24);
    positive("hidden_size", c.hidden_size, 1 << 20);
    positive("intermediate_size", c.intermediate_size, 1 << 22);
    positive("num_hidden_layers", c.num_hidden_layers, 4096);
    positive("num_attention_heads", c.num_attention_heads, 4096);
    positive("num_key_value_heads", c.num_key_value_heads, 4096);
    positive("head_dim", c.head_dim, 256);
    positive("max_position_embeddings", c.max_position_embeddings, longest);
    if (c.head_dim % 2) fail(exit, "{}: head_dim should be even for the rotary embedding, found {}", where, c.head_dim);
    if (c.num_attention_heads % c.num_key_value_heads)
        fail(exit, "{}: num_attention_heads ({}) should be a multiple of num_key_value_heads ({})", where,
             c.num_attention_heads, c.num_key_value_heads);
    if (!(c.rms_norm_eps > 0 && c.rms_norm_eps < 1))
        fail(exit, "{}: rms_norm_eps should be between 0 and 1, found {}", where, c.rms_norm_eps);
    if (!(c.rope_theta > 1)) fail(exit, "{}: rope_theta should be above 1, found {}", where, c.rope_theta);
}

namespace {

Json rope_scaling_json(const RopeScaling& s) {
    Json j;
    switch (s.kind) {
        case RopeScaling::Kind::none:
            return nullptr;
        case RopeScaling::Kind::linear:
            return {{"rope_type", "linear"}, {"factor", s.factor}};
        case RopeScaling::Kind::llama3:
            return {{"rope_type", "llama3"},
                    {"factor", s.factor},
                    {"low_freq_factor", s.low_freq_factor},
                    {"high_freq_factor", s.high_freq_factor},
                    {"original_max_position_embeddings", static_cast<int64_t>(s.original_max_position)}};
        case RopeScaling::Kind::yarn:
            j = {{"rope_type", "yarn"},
                 {"factor", s.factor},
                 {"beta_fast", s.beta_fast},
                 {"beta_slow", s.beta_slow},
                 {"truncate", s.truncate},
                 {"original_max_position_embeddings", static_cast<int64_t>(s.original_max_position)}};
            if (s.attention_factor != 0) j["attention_factor"] = s.attention_factor;
            if (s.mscale != 0) j["mscale"] = s.mscale;
            if (s.mscale_all_dim != 0) j["mscale_all_dim"] = s.mscale_all_dim;
            return j;
    }
    return nullptr;
}

void add_windows(Json& j, const ModelConfig& c) {
    const WindowRule rule = family_of(c.architecture).windows;
    if (rule == WindowRule::none) return;
    const int64_t window = c.windows.empty() ? 0 : std::ranges::max(c.windows);
    const bool listed = rule == WindowRule::listed_or_upper;
    if (listed) j["use_sliding_window"] = window > 0;
    j["sliding_window"] = window ? Json(window) : Json(nullptr);
    if (!listed) return;
    Json types = Json::array();
    for (const int64_t w : c.windows) types.push_back(w ? "sliding_attention" : "full_attention");
    j["layer_types"] = types;
}

}  // namespace

Json to_json(const ModelConfig& c) {
    const ModelFamily& family = family_of(c.architecture);
    Json j = {{"architectures", {std::string(family.class_prefix) + "ForCausalLM"}},
              {"model_type", family.model_type},
              {"vocab_size", c.vocab_size},
              {"hidden_size", c.hidden_size},
              {"intermediate_size", c.intermediate_size},
              {"num_hidden_layers", c.num_hidden_layers},
              {"num_attention_heads", c.num_attention_heads},
              {"num_key_value_heads", c.num_key_value_heads},
              {"head_dim", c.head_dim},
              {"hidden_act", "silu"},
              {"max_position_embeddings", c.max_position_embeddings},
              {"initializer_range", c.initializer_range},
              {"rms_norm_eps", c.rms_norm_eps},
              {"rope_theta", c.rope_theta},
              {"rope_scaling", rope_scaling_json(c.rope_scaling)},
              {"tie_word_embeddings", c.tie_word_embeddings},
              {"attention_bias", c.qkv_bias},
              {"attention_dropout", 0.0},
              {"torch_dtype", "float32"},
              {"use_cache", true}};
    if (family.mlp_bias) j["mlp_bias"] = c.mlp_bias;
    add_windows(j, c);
    if (c.bos_token_id >= 0) j["bos_token_id"] = c.bos_token_id;
    if (c.pad_token_id >= 0) j["pad_token_id"] = c.pad_token_id;
    if (c.eos_token_ids.size() == 1) j["eos_token_id"] = c.eos_token_ids[0];
    if (c.eos_token_ids.size() > 1) j["eos_token_id"] = c.eos_token_ids;
    if (c.score_head) set_score_head(j, c);
    return j;
}

void set_score_head(Json& json, const ModelConfig& c) {
    json["architectures"] = {std::string(family_of(c.architecture).class_prefix) + score_class};
    json["num_labels"] = 1;
    json["id2label"] = {{"0", "LABEL_0"}};
    json["label2id"] = {{"LABEL_0", 0}};
    json["pad_token_id"] = c.pad_token_id;
}

}  // namespace colonnade
