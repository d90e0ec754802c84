#!/usr/bin/env python3
"""Compares a prepared token store with transformers, chat by chat: ids by apply_chat_template, and the loss mask by
its assistant mask (templates with {% generation %}) or by rendering each answer's prompt.

    build/bin/prepare config.yaml
    scripts/check_chats.py MODEL_FOLDER chats.jsonl PREPARED/train-<key>.h5

Needs transformers, jinja2 and h5py. An answer counts as learned from the end of its prompt (add_generation_prompt) up
to the first special token behind it. Answers that begin with white space may differ: docs/models.md says why. Templates
that write the date see today's; prepare needs chat_template_date=<today>.
"""
import json
import sys

import h5py
from transformers import AutoTokenizer

folder, rows, store = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(folder)
special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}


def ids_of(messages, prompt=False):
    return tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=False)


def learned(messages, ids):
    if "generation %}" in tokenizer.chat_template:
        return tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)["assistant_masks"]
    weights = [0] * len(ids)
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = ids_of(messages[:i], prompt=True)
        begin = next((k for k, (a, b) in enumerate(zip(prompt, ids)) if a != b), len(prompt))
        end = next((k + 1 for k in range(begin, len(ids)) if ids[k] in special), len(ids))
        weights[begin:end] = [1] * (end - begin)
    return weights


with h5py.File(store) as file:
    begins, tokens, weights, lines = (file[name][:] for name in ("sample_begins", "tokens", "weights", "source_lines"))
chats = [json.loads(line)["messages"] for line in open(rows, encoding="utf-8")]
different_ids = different_masks = count = 0
for begin, end, line in zip(begins, begins[1:], lines):
    count += 1
    expected = ids_of(chats[line - 1])
    found = tokens[begin:end].tolist()
    if found != expected:
        different_ids += 1
        if different_ids <= 3:
            at = next((k for k, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
            print(f"{rows}:{line}: from token {at}: {tokenizer.convert_ids_to_tokens(found[at:at + 8])}, transformers "
                  f"{tokenizer.convert_ids_to_tokens(expected[at:at + 8])}")
    elif [int(w > 0) for w in weights[begin:end]] != learned(chats[line - 1], expected):
        different_masks += 1
        if different_masks <= 3:
            mask = learned(chats[line - 1], expected)
            at = next(k for k in range(len(mask)) if mask[k] != int(weights[begin + k] > 0))
            print(f"{rows}:{line}: token {at} {tokenizer.convert_ids_to_tokens(found[at:at + 3])}: learned "
                  f"{int(weights[begin + at] > 0)}, expected {mask[at]}")
print(f"{count} chats: ids differ in {different_ids}, loss masks in {different_masks}")
sys.exit(bool(different_ids or different_masks))
