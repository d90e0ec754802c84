#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

// Families without a system turn put the system message into the first user turn. transformers adds no space after BOS,
// so plain adds it explicitly.
constexpr const char* plain =
    R"({% if bos_token %}{{ bos_token + ' ' }}{% endif %}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %})";
constexpr const char* chatml =
    R"({% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";
constexpr const char* llama2 =
    R"({% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + (ns.system + m.content).strip() + ' [/INST]' }}{% set ns.system = '' %}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %})";
constexpr const char* llama3 =
    R"({{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\n\n' + m.content.strip() + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";
constexpr const char* mistral =
    R"({{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}{% elif m.role == 'user' %}{{ ' [INST] ' + ns.system + m.content + ' [/INST]' }}{% set ns.system = '' %}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %})";
constexpr const char* zephyr =
    R"({% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";
constexpr const char* gemma =
    R"({{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + ns.system + m.content.strip() + '<end_of_turn>\n' }}{% set ns.system = '' %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %})";

struct Template {
    const char* name;
    const char* jinja;
    const char* own_bos = nullptr;  ///< the family's BOS piece
};
constexpr Template templates[] = {
    {"plain", plain},     {"chatml", chatml}, {"llama2", llama2},        {"llama3", llama3, "<|begin_of_text|>"},
    {"mistral", mistral}, {"zephyr", zephyr}, {"gemma", gemma, "<bos>"},
};

}  // namespace

std::string chat_template_jinja(const std::string& chat_template, const Tokenizer& tokenizer) {
    for (const auto& [name, jinja, own_bos] : templates) {
        if (chat_template != name) continue;
        std::string text = jinja;
        // If a tokenizer has the family's piece besides its own BOS, chats begin with the family's
        // (Segment::Kind::bos).
        constexpr std::string_view bos = "{{ bos_token }}";
        if (own_bos && tokenizer.piece_id(own_bos)) text.replace(text.find(bos), bos.size(), own_bos);
        return text;
    }
    fail(Exit::internal, "no Jinja form of chat template '{}'", chat_template);
}

}  // namespace colonnade
