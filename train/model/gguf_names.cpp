#include "train/model/gguf_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace colonnade {
namespace {

struct NamePair {
    std::string_view gguf, hugging_face;  // without ".weight" or ".bias"
};
constexpr NamePair outer_names[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
// After "blk.N." and "model.layers.N.".
constexpr NamePair block_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

using Side = std::string_view NamePair::*;

Side side_of(TensorNames names) {
    return names == TensorNames::gguf ? &NamePair::gguf : &NamePair::hugging_face;
}
TensorNames other(TensorNames names) {
    return names == TensorNames::gguf ? TensorNames::hugging_face : TensorNames::gguf;
}
std::string_view block_prefix(TensorNames names) {
    return names == TensorNames::gguf ? "blk." : "model.layers.";
}

std::optional<std::string> translated(std::span<const NamePair> names, std::string_view name, TensorNames from) {
    const auto found = std::ranges::find(names, name, side_of(from));
    if (found == names.end()) return {};
    return std::string((*found).*side_of(other(from)));
}

}  // namespace

std::optional<std::string> translated_name(const std::string& name, TensorNames from) {
    const size_t dot = name.rfind('.');
    if (dot == name.npos) return {};
    const std::string kind = name.substr(dot);
    if (kind != ".weight" && kind != ".bias") return {};
    const std::string_view stem = std::string_view(name).substr(0, dot), prefix = block_prefix(from);
    if (!stem.starts_with(prefix)) {
        const auto outer = translated(outer_names, stem, from);
        return outer ? std::optional(*outer + kind) : std::nullopt;
    }
    const size_t begin = prefix.size(), digits = stem.find_first_not_of("0123456789", begin);
    if (digits == begin || digits == stem.npos || stem[digits] != '.') return {};
    const auto inner = translated(block_names, stem.substr(digits + 1), from);
    if (!inner) return {};
    return fmt::format("{}{}.{}{}", block_prefix(other(from)), stem.substr(begin, digits - begin), *inner, kind);
}

}  // namespace colonnade
