#!/usr/bin/env python3
"""Writes what transformers (5.24.0) says an assistant wrote, for templates with {% generation %}.

    python3 tests/golden/make_generation_golden.py                     tests/golden/generation_golden.json
    python3 tests/golden/make_generation_golden.py --trl OUT [NAME=TOKENIZER_JSON ...]

The first form uses the templates below and the small Qwen tokenizer of tests/golden/tokenizers. The second one uses the
*_training.jinja templates of an installed TRL and writes OUT/cases.json; COLONNADE_TRL_MASKS=OUT makes
generation_test compare with it. A template whose name begins with NAME gets that tokenizer, the others the small one.

The file: {"tokenizers": {name: tokenizer.json}, "templates": {name: [source, tokenizer]}, "date": [year, month, day],
"cases": [{"template", "chat", "messages", "tools", "ids", "mask"}]}.
"""
import argparse
import datetime
import json
import pathlib
import re

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).resolve().parent
MARKER = re.compile(r"<\|[^|<>\s'\"]{1,40}\|?>|<｜[^<>\s'\"]{1,60}｜>|\[/?[A-Z_]{3,30}\]|</?[a-z]+_of_[a-z]+>|</?think>")

CHATML = """{%- if tools %}<|im_start|>system
# Tools
{{ tools | tojson }}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% generation %}
{%- if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}{% for call in m.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>{% endgeneration %}
{% else %}{{ m.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
WITH_NEWLINE = CHATML.replace("<|im_end|>{% endgeneration %}\n", "<|im_end|>\n{% endgeneration %}")
LAST_ONLY = """{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% if loop.last %}{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"""
TAIL = """{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>
{% generation %}{{ m.content }}<|end|>
{% endgeneration %}{% else %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% else %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"""
MACRO = """{% macro answer(m) %}{% generation %}{{ m.content | trim }}<|eot_id|>{% endgeneration %}{% endmacro %}{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.role == 'assistant' %}{{ answer(m) }}{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"""
OWN = {"chatml": CHATML, "with_newline": WITH_NEWLINE, "last_only": LAST_ONLY, "tail": TAIL, "macro": MACRO}

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Its name"}}, "required": ["city"]}}}]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, **arguments):
    return {"id": "callabcde", "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return message("user", text)


def answer(text, **more):
    return message("assistant", text, **more)


def chats():
    """Chats by name; a tuple holds a chat and its tools."""
    texts = ["2 + 2 = 4.", "Größe: 你好 👩‍👩‍👧 naïve", "def f(x):\n\treturn x  # done", "- a\n- b\n\n- c", "It's \"fine\" & <b>ok</b> {x}"]
    made = {f"one_{i}": [user("Q" * (i + 1) + "?"), answer(text)] for i, text in enumerate(texts)}
    made |= {f"system_{i}": [message("system", "Be brief."), user(text), answer(texts[-1 - i])] for i, text in enumerate(texts)}
    made |= {f"turns_{n}": [m for i in range(n) for m in (user(f"Question {i}?"), answer(texts[i % 5] + f" ({i})"))] for n in (2, 3, 5, 8)}
    made["system_turns"] = [message("system", "You are terse.\nAnswer."), *made["turns_3"]]
    made["long"] = [user("Tell me."), answer("\n\n".join(f"Paragraph {i}. The quick brown fox, 1234567." for i in range(20)))]
    made["open"] = [user("a"), answer("b"), user("c")]
    made["think"] = [user("2+2?"), answer("4", reasoning_content="Add them.\nTwo and two.")]
    made["think_turns"] = [user("2+2?"), answer("4", reasoning_content="Add."), user("3+3?"), answer("6", reasoning_content="Add again.")]
    made["think_spelled"] = [user("2+2?"), answer("<think>\nAdd them.\n</think>\n\n4")]
    made["think_spelled_turns"] = [user("2+2?"), answer("<think>\nAdd.\n</think>\n\n4"), user("3+3?"), answer("<think>\nMore.\n</think>\n\n6")]
    asked, found = user("How is Bern?"), message("tool", "sunny, 21.5", name="weather", tool_call_id="callabcde")
    made["tool"] = ([asked, answer("", tool_calls=[call("weather", city="Bern")]), found, answer("Sunny.")], TOOLS)
    made["tool_no_schema"] = [asked, answer("", tool_calls=[call("weather", city="Zürich")]), found, answer("Sunny.")]
    made["tool_text"] = ([asked, answer("I look.", tool_calls=[call("weather", city="Bern")]), found, answer("Sunny.")], TOOLS)
    made["tool_think"] = ([asked, answer("", reasoning_content="A tool helps.", tool_calls=[call("weather", city="Bern")]), found,
                           answer("Sunny.", reasoning_content="It is sunny.")], TOOLS)
    made["tool_two"] = ([asked, answer("", tool_calls=[call("weather", city="Bern"), call("weather", city="Chur")]), found, found,
                         answer("Sunny both."), user("Thanks"), answer("Welcome.")], TOOLS)
    made["tool_last"] = ([message("system", "Use tools."), asked, answer("", tool_calls=[call("weather", city="Bern")])], TOOLS)
    return {name: chat if isinstance(chat, tuple) else (chat, None) for name, chat in made.items()}


def tokenizer_json(source, template):
    """The tokenizer with the markers of a template as special tokens."""
    tokenizer = Tokenizer.from_file(str(source))
    vocabulary = tokenizer.get_vocab()
    markers = [m for m in sorted({"<s>", "</s>", *MARKER.findall(template)}) if m not in vocabulary]
    tokens = [AddedToken(m, normalized=False, special=not m.endswith("think>")) for m in markers]  # as Qwen and DeepSeek do
    tokenizer.add_tokens(tokens)
    return tokenizer.to_str()


def masks(template, text):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text), bos_token="<s>", eos_token="</s>",
                                        chat_template=template)
    for name, (chat, tools) in chats().items():
        try:
            found = tokenizer.apply_chat_template(chat, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
        except Exception as error:  # the template refuses the chat
            print(f"    {name}: {type(error).__name__}: {str(error)[:100]}")
            continue
        yield {"chat": name, "messages": chat, "tools": tools, "ids": found["input_ids"], "mask": found["assistant_masks"]}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--trl")
    arguments.add_argument("tokenizers", nargs="*")
    arguments = arguments.parse_args()
    templates, output = OWN, HERE / "generation_golden.json"
    chosen = dict(pair.split("=", 1) for pair in arguments.tokenizers)
    if arguments.trl:
        import importlib.util
        folder = pathlib.Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
        templates = {path.stem: path.read_text() for path in sorted(folder.glob("*_training.jinja"))}
        output = pathlib.Path(arguments.trl) / "cases.json"
        output.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.date.today()
    result = {"tokenizers": {}, "templates": {}, "date": [today.year, today.month, today.day], "cases": []}
    if not arguments.trl:
        result["date"] = [2025, 1, 1]  # none of the templates asks for it
    for name, template in templates.items():
        print(name)
        source = next((path for prefix, path in chosen.items() if name.startswith(prefix)), HERE / "tokenizers/qwen2/tokenizer.json")
        text = tokenizer_json(source, template if arguments.trl else "".join(OWN.values()))
        key = next((key for key, known in result["tokenizers"].items() if known == json.loads(text)), f"{len(result['tokenizers'])}")
        result["tokenizers"][key] = json.loads(text)
        result["templates"][name] = [template, key]
        result["cases"] += [{"template": name, **case} for case in masks(template, text)]
    lines = [f'{json.dumps(key)}: {json.dumps(result[key], ensure_ascii=False)}' for key in ("date", "tokenizers", "templates")]
    cases = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in result["cases"])
    output.write_text("{" + ",\n".join(lines) + ',\n"cases": [\n' + cases + "]}\n")
    print(f"{len(result['cases'])} cases of {len(templates)} templates in {output}")


if __name__ == "__main__":
    main()
