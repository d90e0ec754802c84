#include "data/text/chat_template.h"

#include "engine/device/error.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

// Families without a system turn put the system message into the first user turn and refuse turns out of order.
constexpr const char* plain =
    R"({{ bos_token }}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %})";
constexpr const char* chatml =
    R"({% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";
constexpr const char* llama2 =
    R"({% set ns = namespace(system='', next='user') %}{% for m in messages %}{% if m.role == 'system' and loop.first %}{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role != ns.next %}{{ raise_exception('message ' ~ loop.index0 ~ " is from role '" ~ m.role ~ "'; user and assistant messages must alternate: expected '" ~ ns.next ~ "'") }}{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + (ns.system + m.content).strip() + ' [/INST]' }}{% set ns.system = '' %}{% set ns.next = 'assistant' %}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% set ns.next = 'user' %}{% endif %}{% endfor %}{% if ns.system %}{{ raise_exception('the only message is the system message, which belongs into a user message') }}{% endif %})";
constexpr const char* llama3 =
    R"({{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\n\n' + m.content.strip() + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";
constexpr const char* mistral =
    R"({{ bos_token }}{% set ns = namespace(system='', next='user') %}{% for m in messages %}{% if m.role == 'system' and loop.first %}{% set ns.system = m.content + '\n\n' %}{% elif m.role != ns.next %}{{ raise_exception('message ' ~ loop.index0 ~ " is from role '" ~ m.role ~ "'; user and assistant messages must alternate: expected '" ~ ns.next ~ "'") }}{% elif m.role == 'user' %}{{ ' [INST] ' + ns.system + m.content + ' [/INST]' }}{% set ns.system = '' %}{% set ns.next = 'assistant' %}{% else %}{{ ' ' + m.content + eos_token }}{% set ns.next = 'user' %}{% endif %}{% endfor %}{% if ns.system %}{{ raise_exception('the only message is the system message, which belongs into a user message') }}{% endif %})";
constexpr const char* zephyr =
    R"({% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";
constexpr const char* gemma =
    R"({{ bos_token }}{% set ns = namespace(system='', next='user') %}{% for m in messages %}{% if m.role == 'system' and loop.first %}{% set ns.system = m.content + '\n\n' %}{% elif m.role != ns.next %}{{ raise_exception('message ' ~ loop.index0 ~ " is from role '" ~ m.role ~ "'; user and assistant messages must alternate: expected '" ~ ns.next ~ "'") }}{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + ns.system + m.content.strip() + '<end_of_turn>\n' }}{% set ns.system = '' %}{% set ns.next = 'assistant' if m.role == 'user' else 'user' %}{% endif %}{% endfor %}{% if ns.system %}{{ raise_exception('the only message is the system message, which belongs into a user message') }}{% endif %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %})";

struct BuiltIn {
    const char* name;
    const char* source;
    const char* own_bos = "";  ///< the family's BOS piece
};
constexpr BuiltIn built_ins[] = {
    {"plain", plain},     {"chatml", chatml}, {"llama2", llama2},        {"llama3", llama3, "<|begin_of_text|>"},
    {"mistral", mistral}, {"zephyr", zephyr}, {"gemma", gemma, "<bos>"},
};

}  // namespace

ChatTemplate::ChatTemplate(std::string name, const std::string& source, const std::string& with_tools,
                           Settings settings)
    : name_(std::move(name)),
      source_(source),
      with_tools_source_(with_tools),
      template_(source, "chat template " + name_),
      settings_(std::move(settings)) {
    if (!with_tools.empty()) with_tools_.emplace(with_tools, "chat template " + name_ + " with tools");
    for (const BuiltIn& known : built_ins)
        if (source == known.source) {
            own_bos_ = known.own_bos;
            built_in_ = true;
        }
}

std::shared_ptr<const ChatTemplate> ChatTemplate::built_in(const std::string& name, Settings settings) {
    for (const BuiltIn& known : built_ins)
        if (name == known.name)
            return std::make_shared<const ChatTemplate>(name, known.source, "", std::move(settings));
    fail(Exit::config, "unknown chat template '{}'; expected one of {}", name, fmt::join(chat_template_names(), ", "));
}

bool ChatTemplate::is_plain() const {
    return source_ == plain;
}

bool ChatTemplate::spells_roles() const {
    return source_ == zephyr;
}

std::string ChatTemplate::identity() const {
    const jinja::Clock& c = settings_.clock;
    return sha256(fmt::format("{}\n{}\n{}\n{}-{}-{} {}:{}:{}", source_, with_tools_source_, settings_.variables.dump(),
                              c.year, c.month, c.day, c.hour, c.minute, c.second));
}

jinja::Rendered ChatTemplate::render(const Json& variables, bool tools, const std::string& where) const {
    try {
        const jinja::Template& chosen = tools && with_tools_ ? *with_tools_ : template_;
        return chosen.render(variables, {.clock = settings_.clock, .limits = {}});
    } catch (const Error& e) {
        fail(Exit::data, "{}: {}", where, e.what());
    }
}

std::vector<std::string> chat_template_names() {
    std::vector<std::string> names;
    for (const BuiltIn& known : built_ins) names.emplace_back(known.name);
    return names;
}

std::string exported_source(const ChatTemplate& chat_template, const Tokenizer& tokenizer) {
    std::string text = chat_template.source();
    constexpr std::string_view bos = "{{ bos_token }}";
    if (!chat_template.own_bos().empty() && tokenizer.piece_id(chat_template.own_bos()))
        text.replace(text.find(bos), bos.size(), chat_template.own_bos());
    // A document of such a tokenizer starts with a space, which transformers does not add behind BOS.
    if (chat_template.is_plain() && tokenizer.bos() && tokenizer.spaces_documents())
        text.replace(text.find(bos), bos.size(), "{{ bos_token + ' ' }}");
    return text;
}

}  // namespace colonnade
