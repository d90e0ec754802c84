#!/usr/bin/env python3
"""Makes template_golden.model and template_golden.json: token ids and assistant masks from transformers for chats with
Colonnade's built-in templates. The tokenizer is LlamaTokenizer with a tiny SentencePiece model.

    python3 tests/golden/make_template_golden.py       (needs transformers 5, sentencepiece)
"""

import io
import json
import pathlib
import shutil
import tempfile

import sentencepiece
import transformers

HERE = pathlib.Path(__file__).parent
MARKERS = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<start_of_turn>", "<end_of_turn>"]

# The families' own templates, with {% generation %} around the assistant's content and end token.
SPLIT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = none %}{% set turns = messages %}{% endif %}")
TEMPLATES = {
    "llama2": SPLIT_SYSTEM +
        "{% for m in turns %}{% if loop.first and system is not none %}"
        "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m.content %}{% else %}{% set content = m.content %}{% endif %}"
        "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}"
        "{% else %}{% generation %}{{ ' ' + content | trim + ' ' + eos_token }}{% endgeneration %}{% endif %}{% endfor %}",
    "mistral": SPLIT_SYSTEM +
        "{{ bos_token }}{% for m in turns %}{% if m.role == 'user' %}{% if loop.first and system is not none %}"
        "{{ ' [INST] ' + system + '\\n\\n' + m.content + ' [/INST]' }}{% else %}{{ ' [INST] ' + m.content + ' [/INST]' }}{% endif %}"
        "{% else %}{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}",
    "chatml":
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3":
        "{{ '<|begin_of_text|>' }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<|eot_id|>' }}{% endgeneration %}"
        "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "zephyr":
        "{% for m in messages %}{{ '<|' + m.role + '|>\\n' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
        "{% else %}{{ m.content + eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    "gemma": SPLIT_SYSTEM +
        "{{ bos_token }}{% for m in turns %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
        "{% if loop.first and system is not none %}{{ system + '\\n\\n' }}{% endif %}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<end_of_turn>' }}{% endgeneration %}"
        "{% else %}{{ m.content | trim + '<end_of_turn>' }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
}


def chat(*contents, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system is not None else []) + turns


CHATS = [
    chat("What is a column?", "A vertical support."),
    chat("Hello", "Hi there", "How many columns?", "12 of them, 3 in a row."),
    chat("Hello", "Good day.", system="You are brief."),
    chat("  spaces  around \n", "  kept or  stripped  "),
    chat("two\nlines\n\nand a\ttab", "caf\u00e9, na\u00efve, \u4e2d\u6587, \U0001f600!\n- one\n- two"),
    chat("one", "two", "three", "four", "five", "six", system="Count on.\nSlowly."),
    chat("[INST] not a marker [/INST]", "<<SYS>> nor this"),
]


def train_tokenizer(folder):
    words = json.dumps(CHATS, ensure_ascii=False).replace("\\n", " ")
    lines = [words, "[INST] user [/INST] <<SYS>> <</SYS>> system assistant model"] * 20
    model = io.BytesIO()  # in memory: a file name would become part of the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=420, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        pad_id=3, user_defined_symbols=MARKERS, minloglevel=2)
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        train_tokenizer(folder)
        shutil.copy(folder / "tokenizer.model", HERE / "template_golden.model")
        tokenizer = transformers.LlamaTokenizer.from_pretrained(folder, legacy=False, additional_special_tokens=MARKERS)
        cases = []
        for family, template in TEMPLATES.items():
            for messages in CHATS:
                whole = tokenizer.apply_chat_template(messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True)
                prompt = tokenizer.apply_chat_template(messages[:-1], chat_template=template, add_generation_prompt=True, return_dict=True)
                cases.append({"template": family, "messages": messages, "ids": whole["input_ids"],
                              "assistant": whole["assistant_masks"], "prompt": prompt["input_ids"]})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "template_golden.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
