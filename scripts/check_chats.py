#!/usr/bin/env python3
"""Compares a prepared token store with transformers, chat by chat: ids by apply_chat_template, and the loss mask by
its assistant mask (templates with {% generation %}) or by rendering each answer's prompt.

    build/bin/prepare config.yaml
    scripts/check_chats.py MODEL_FOLDER chats.jsonl PREPARED/train-<key>.h5

Needs transformers, jinja2 and h5py. An answer counts as learned from the end of its prompt (add_generation_prompt) up
to the first special token behind it. A chat of several sequences was learned turn by turn (docs/data.md): each of them is
compared with the messages up to its answer. Answers that begin with white space may differ: docs/models.md says why.
Templates that write the date see today's; prepare needs chat_template_date=<today>.
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


def learn(messages, ids, answers):
    """The loss mask of `ids`, which these messages became: of all answers, or of some."""
    if "generation %}" in tokenizer.chat_template and answers == answers_of(messages):
        return tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)["assistant_masks"]
    weights = [0] * len(ids)
    for i in answers:
        prompt = ids_of(messages[:i], prompt=True)
        begin = next((k for k, (a, b) in enumerate(zip(prompt, ids)) if a != b), len(prompt))
        end = next((k + 1 for k in range(begin, len(ids)) if ids[k] in special), len(ids))
        weights[begin:end] = [1] * (end - begin)
    return weights


def answers_of(messages):
    return [i for i, message in enumerate(messages) if message["role"] == "assistant"]


def expected_sequences(messages, count):
    """Ids and loss mask of each sequence: the whole chat, or one for every answer."""
    answers = answers_of(messages)
    parts = [(messages, answers)] if count == 1 else [(messages[: i + 1], [i]) for i in answers]
    for part, learned in parts:
        ids = ids_of(part)
        yield ids, learn(part, ids, learned)


def stored_sequences(file):
    """Line, then ids and loss mask of each sequence, sample by sample."""
    tokens, token_begins, shared, spans, span_begins, begins, lines = (
        file[name][:] for name in ("tokens", "token_begins", "shared", "spans", "span_begins", "sequence_begins", "source_lines"))
    spans = spans.reshape(-1, 2)
    for first, last, line in zip(begins, begins[1:], lines):
        found, ids = [], []
        for s in range(first, last):
            ids = ids[: shared[s]] + tokens[token_begins[s]:token_begins[s + 1]].tolist()
            mask = [0] * len(ids)
            for begin, end in spans[span_begins[s]:span_begins[s + 1]]:
                mask[begin:end] = [1] * (end - begin)
            found.append((ids, mask))
        yield int(line), found


def first_difference(found, expected):
    return next((k for k, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))


chats = [json.loads(line)["messages"] for line in open(rows, encoding="utf-8")]
different_ids = different_masks = count = sequences = 0
with h5py.File(store) as file:
    for line, found in stored_sequences(file):
        count += 1
        sequences += len(found)
        expected = list(expected_sequences(chats[line - 1], len(found)))
        if len(found) != len(expected):
            different_ids += 1
            print(f"{rows}:{line}: {len(found)} sequences for {len(expected)} answers")
            continue
        for (ids, mask), (expected_ids, expected_mask) in zip(found, expected):
            if ids != expected_ids:
                different_ids += 1
                at = first_difference(ids, expected_ids)
                if different_ids <= 3:
                    print(f"{rows}:{line}: from token {at}: {tokenizer.convert_ids_to_tokens(ids[at:at + 8])}, transformers "
                          f"{tokenizer.convert_ids_to_tokens(expected_ids[at:at + 8])}")
            elif mask != expected_mask:
                different_masks += 1
                at = first_difference(mask, expected_mask)
                if different_masks <= 3:
                    print(f"{rows}:{line}: token {at} {tokenizer.convert_ids_to_tokens(ids[at:at + 3])}: learned {mask[at]}, "
                          f"expected {expected_mask[at]}")
print(f"{count} chats, {sequences} sequences: ids differ in {different_ids}, loss masks in {different_masks}")
sys.exit(bool(different_ids or different_masks))
