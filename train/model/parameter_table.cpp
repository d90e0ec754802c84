#include "train/model/parameter_table.h"

namespace colonnade {
namespace {

using Entry = ParameterEntry;
using Config = const ModelConfig&;
using Model = ModelParameters;
using Block = BlockParameters;

// clang-format off
int64_t one(Config) { return 1; }
int64_t vocab(Config c) { return c.vocab_size; }
int64_t hidden(Config c) { return c.hidden_size; }
int64_t ffn(Config c) { return c.intermediate_size; }
int64_t head_dim(Config c) { return c.head_dim; }
int64_t query(Config c) { return c.query_width(); }
int64_t kv(Config c) { return c.kv_width(); }

bool always(Config) { return true; }
bool score_head(Config c) { return c.score_head; }
bool lm_head(Config c) { return !c.score_head && !c.tie_word_embeddings; }
bool qkv_bias(Config c) { return c.qkv_bias; }
bool o_bias(Config c) { return c.o_bias; }
bool mlp_bias(Config c) { return c.mlp_bias; }
bool qk_norm(Config c) { return c.qk_norm; }
// clang-format on

constexpr Entry outer_matrix(Role role, const char* name, Tensor Model::*view, Entry::Size rows, Entry::Exists exists) {
    return {.role = role,
            .name = name,
            .view = {.of_model = view},
            .rows = rows,
            .columns = hidden,
            .exists = exists,
            .init = Init::normal,
            .decay = true};
}
constexpr Entry outer_norm(Role role, const char* name, Tensor Model::*view) {
    return {.role = role, .name = name, .view = {.of_model = view}, .rows = hidden, .exists = always};
}
constexpr Entry norm(Role role, const char* name, Tensor Block::*view, Entry::Size size,
                     Entry::Exists exists = always) {
    return {.role = role, .name = name, .view = {.of_block = view}, .rows = size, .exists = exists};
}
constexpr Entry weight(Role role, const char* name, Projection projection, Entry::Size rows, Entry::Size columns,
                       Entry::Exists exists = always) {
    return {.role = role,
            .name = name,
            .view = {.projection = projection, .part = &LinearParameters::weight},
            .rows = rows,
            .columns = columns,
            .exists = exists,
            .init = Init::normal,
            .decay = true};
}
constexpr Entry bias(Role role, const char* name, Projection projection, Entry::Size size, Entry::Exists exists) {
    return {.role = role,
            .name = name,
            .view = {.projection = projection, .part = &LinearParameters::bias},
            .rows = size,
            .exists = exists,
            .init = Init::zeros};
}

using enum Projection;
const Entry head_entries[] = {
    outer_matrix(Role::score_head, "score.weight", &Model::head, one, score_head),
    outer_matrix(Role::lm_head, "lm_head.weight", &Model::head, vocab, lm_head),
    outer_norm(Role::final_norm, "model.norm.weight", &Model::final_norm),
};
const Entry block_entries[] = {
    weight(Role::down, "mlp.down_proj.weight", down, hidden, ffn),
    bias(Role::down_bias, "mlp.down_proj.bias", down, hidden, mlp_bias),
    weight(Role::gate, "mlp.gate_proj.weight", gate_up, ffn, hidden),
    weight(Role::up, "mlp.up_proj.weight", gate_up, ffn, hidden),
    bias(Role::gate_bias, "mlp.gate_proj.bias", gate_up, ffn, mlp_bias),
    bias(Role::up_bias, "mlp.up_proj.bias", gate_up, ffn, mlp_bias),
    norm(Role::post_attention_norm, "post_attention_layernorm.weight", &Block::post_attention_norm, hidden),
    weight(Role::o, "self_attn.o_proj.weight", o, hidden, query),
    bias(Role::o_bias, "self_attn.o_proj.bias", o, hidden, o_bias),
    norm(Role::q_norm, "self_attn.q_norm.weight", &Block::q_norm, head_dim, qk_norm),
    norm(Role::k_norm, "self_attn.k_norm.weight", &Block::k_norm, head_dim, qk_norm),
    weight(Role::q, "self_attn.q_proj.weight", qkv, query, hidden),
    weight(Role::k, "self_attn.k_proj.weight", qkv, kv, hidden),
    weight(Role::v, "self_attn.v_proj.weight", qkv, kv, hidden),
    bias(Role::q_bias, "self_attn.q_proj.bias", qkv, query, qkv_bias),
    bias(Role::k_bias, "self_attn.k_proj.bias", qkv, kv, qkv_bias),
    bias(Role::v_bias, "self_attn.v_proj.bias", qkv, kv, qkv_bias),
    norm(Role::input_norm, "input_layernorm.weight", &Block::input_norm, hidden),
};
const Entry embedding_entries[] = {
    outer_matrix(Role::embedding, "model.embed_tokens.weight", &Model::embedding, vocab, always),
};

}  // namespace

const ParameterTable& parameter_table() {
    static const ParameterTable table{head_entries, block_entries, embedding_entries};
    return table;
}

const ParameterEntry& entry_of(Role role) {
    const ParameterTable& table = parameter_table();
    for (const auto& entries : {table.head, table.block, table.embedding})
        for (const ParameterEntry& entry : entries)
            if (entry.role == role) return entry;
    fail(Exit::internal, "role {} is not in the table of parameters", static_cast<int>(role));
}

std::string ParameterEntry::module_path() const {
    const std::string_view full = name;
    return std::string(full.substr(0, full.rfind('.')));
}

std::string ParameterEntry::module_name() const {
    const std::string path = module_path();
    return path.substr(path.rfind('.') + 1);
}

}  // namespace colonnade
