#pragma once
// Templates in the manner of well-known families, written for the tests.

#include <string>
#include <vector>

namespace colonnade {

/// Thinking is written after the last question only; tool calls as JSON; results of tools in a user's turn.
inline const std::string kQwenLike = R"({%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools
{% for t in tools %}{{ t | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}{% set content = m.content %}{% set reasoning = m.reasoning_content | default('') %}
{%- if not reasoning and '</think>' in content %}{% set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant
{% if loop.index0 > ns.last %}<think>
{{ reasoning }}
</think>

{% endif %}{{ content }}{% for c in m.tool_calls or [] %}{% if content or not loop.first %}
{% endif %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %})";

/// Contents are stripped; a tool call stands alone and ends with another token.
inline const std::string kLlamaLike =
    R"({{- bos_token }}{% for m in messages %}{% if m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ m.content | tojson }}<|eot_id|>{% elif m.tool_calls %}<|start_header_id|>assistant<|end_header_id|>

{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eom_id|>{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.role == 'user' and tools and loop.first %}{{ tools | tojson }}

{% endif %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %})";

/// No generation prompt: [/INST] asks. The system message stands before the last question.
inline const std::string kMistralLike =
    R"({{- bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}
{%- set ns = namespace(last=0) %}{% for m in rest %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in rest %}{% if m.role == 'user' %}[INST] {% if system and loop.index0 == ns.last %}{{ system + '\n\n' }}{% endif %}{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content + eos_token }}{% else %}{{ raise_exception('only user and assistant messages') }}{% endif %}{% endfor %})";

/// Thinking within the content is dropped from all answers; the generation prompt opens it.
inline const std::string kDistilledLike =
    R"({{- bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<|User|>{{ m.content }}{% elif m.role == 'assistant' %}{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}<|Assistant|>{{ content }}<|end_of_sentence|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>
{% endif %})";

/// The generation prompt opens thinking; it stays within the content of the last answer only.
inline const std::string kOpenedLike = R"({%- for m in messages %}<|im_start|>{{ m.role }}
{% set content = m.content %}{% if m.role == 'assistant' and not loop.last %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %})";

/// Channels; <|return|> ends the last answer and <|end|> the others; thinking only in the last answer.
inline const std::string kChannelsLike =
    R"({%- for m in messages %}{% if m.role == 'assistant' %}{% if loop.last and m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %})";

/// An answer to a tool continues the turn that called it: no generation prompt asks for it.
inline const std::string kContinuingLike =
    R"({%- for m in messages %}{% if m.role == 'assistant' %}{% if loop.first or loop.previtem.role != 'tool' %}<|start|>assistant{% endif %}<|channel|>final<|message|>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{{ '<|return|>' if m.tool_calls else '<|end|>' }}{% elif m.role == 'tool' %}<|message|>{{ m.content }}<|message|>{% else %}{% if loop.first and tools %}{{ tools | tojson }}{% endif %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1].role != 'tool' %}<|start|>assistant{% endif %})";

/// {% generation %} around answers with their end token.
inline const std::string kGenerationLike = R"({%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %})";

/// Only users and assistants are written.
inline const std::string kWithoutSystem =
    R"({%- for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>
{% endif %}{% endfor %})";

inline const std::vector<std::string> kFamilyMarkers = {"<|im_start|>",
                                                        "<|im_end|>",
                                                        "<|start_header_id|>",
                                                        "<|end_header_id|>",
                                                        "<|eot_id|>",
                                                        "<|eom_id|>",
                                                        "[INST]",
                                                        "[/INST]",
                                                        "<|User|>",
                                                        "<|Assistant|>",
                                                        "<|end_of_sentence|>",
                                                        "<|start|>",
                                                        "<|end|>",
                                                        "<|message|>",
                                                        "<|channel|>",
                                                        "<|return|>"};

}  // namespace colonnade
