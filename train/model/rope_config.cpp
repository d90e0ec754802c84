#include "train/model/rope_config.h"

#include <algorithm>

#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr const char* original_length = "original_max_position_embeddings";

std::string kind_of(const JsonKeys& keys) {
    return keys.text("rope_type", keys.text("type", "default"));
}

const Json* settings(const JsonKeys& top, const char* key) {
    const Json* value = top.find(key);
    return value && !(value->is_object() && value->empty()) ? value : nullptr;
}

// rope_scaling replaces rope_parameters: what only the latter says would be lost.
void refuse_contradiction(const JsonKeys& chosen, const JsonKeys& other, double theta) {
    const std::string kind = kind_of(other);
    if (kind != "default" && kind != kind_of(chosen))
        fail(Exit::data, "{} says '{}', {} says '{}': keep one of them", chosen.where(), kind_of(chosen), other.where(),
             kind);
    if (const double lost = other.number("rope_theta", theta); lost != theta)
        fail(Exit::data,
             "{} has rope_theta {}, but transformers reads {} beside it and takes rope_theta {}: write all settings in "
             "one place",
             other.where(), lost, chosen.where(), theta);
}

// The length of the pretraining: the top level, the settings, else max_position_embeddings.
double read_original_length(const JsonKeys& top, const JsonKeys& keys, ModelConfig& c) {
    const double inside = keys.number(original_length, static_cast<double>(c.max_position_embeddings));
    const double length = top.number(original_length, inside);
    if (keys.find(original_length) && inside != length)
        c.notices.push_back(fmt::format("{}: {} {} counts, not the {} of {}, as in transformers", top.where(),
                                        original_length, length, inside, keys.where()));
    return length;
}

// Names keys that the kind does not use.
void note_unused(const Json& json, const JsonKeys& keys, std::initializer_list<std::string_view> used, ModelConfig& c) {
    constexpr std::string_view everywhere[] = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
    for (const auto& [key, value] : json.items()) {
        if (value.is_object()) keys.refuse(key, "absent: settings by layer type are not supported");
        if (!value.is_null() && std::ranges::find(everywhere, key) == std::end(everywhere) &&
            std::ranges::find(used, key) == used.end())
            c.notices.push_back(
                fmt::format("{}: {} is not used with rope_type '{}'", keys.where(), key, kind_of(keys)));
    }
}

void read_scaling(const JsonKeys& top, const Json& json, const JsonKeys& keys, ModelConfig& c) {
    RopeScaling& s = c.rope_scaling;
    const std::string kind = kind_of(keys);
    if (kind == "default") {
        note_unused(json, keys, {}, c);
    } else if (kind == "linear") {
        s.kind = RopeScaling::Kind::linear;
        s.factor = keys.number("factor");
        note_unused(json, keys, {"factor"}, c);
    } else if (kind == "llama3") {
        s.kind = RopeScaling::Kind::llama3;
        s.factor = keys.number("factor");
        s.low_freq_factor = keys.number("low_freq_factor");
        s.high_freq_factor = keys.number("high_freq_factor");
        s.original_max_position = read_original_length(top, keys, c);
        note_unused(json, keys, {"factor", "low_freq_factor", "high_freq_factor", original_length}, c);
    } else if (kind == "yarn") {
        s.kind = RopeScaling::Kind::yarn;
        s.original_max_position = read_original_length(top, keys, c);
        s.factor = keys.number("factor", static_cast<double>(c.max_position_embeddings) / s.original_max_position);
        s.beta_fast = keys.number("beta_fast", 32.0);
        s.beta_slow = keys.number("beta_slow", 1.0);
        s.attention_factor = keys.number("attention_factor", 0.0);
        s.mscale = keys.number("mscale", 0.0);
        s.mscale_all_dim = keys.number("mscale_all_dim", 0.0);
        s.truncate = keys.boolean("truncate", true);
        note_unused(json, keys,
                    {"factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate",
                     original_length},
                    c);
    } else {
        fail(Exit::data, "{}: rope_type '{}' is not supported; default, linear, llama3 and yarn are", keys.where(),
             kind);
    }
}

}  // namespace

void read_rope(const JsonKeys& top, ModelConfig& c) {
    const Json *scaling = settings(top, "rope_scaling"), *parameters = settings(top, "rope_parameters");
    const double outer_theta = top.number("rope_theta", 10000.0);
    static const Json none = Json::object();
    const Json& json = scaling ? *scaling : parameters ? *parameters : none;
    const JsonKeys keys(json, top.where() + (scaling ? ": rope_scaling" : ": rope_parameters"));
    c.rope_theta = keys.number("rope_theta", outer_theta);
    if (top.find("rope_theta") && c.rope_theta != outer_theta)
        c.notices.push_back(fmt::format("{}: rope_theta {} counts, not the {} at the top level, as in transformers",
                                        keys.where(), c.rope_theta, outer_theta));
    if (keys.number("partial_rotary_factor", top.number("partial_rotary_factor", 1.0)) != 1.0)
        fail(Exit::data, "{}: partial_rotary_factor other than 1 is not supported", keys.where());
    if (scaling && parameters)
        refuse_contradiction(keys, JsonKeys(*parameters, top.where() + ": rope_parameters"), c.rope_theta);
    read_scaling(top, json, keys, c);
}

}  // namespace colonnade
