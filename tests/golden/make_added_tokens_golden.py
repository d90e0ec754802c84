#!/usr/bin/env python3
"""Writes tests/golden/added_tokens_golden.jsonl: tokenizers of tests/golden/tokenizers that get new tokens and roles from
transformers (5.24), and the ids of some texts.

    python3 tests/golden/make_added_tokens_golden.py
"""
import json
import pathlib

import transformers
from tokenizers import AddedToken

HERE = pathlib.Path(__file__).parent
ROLES = {"pad_token": "<|pad|>", "eos_token": "<|im_end|>"}
SPECIAL, PLAIN = ["<|tool|>", "<|im_start|>"], ["<think>", "</think>", "New Word"]
TEXTS = ["<|im_start|>user\nWhat is a New Word?<|im_end|>\n<|pad|><|pad|>", "<think> let me see</think>The answer<|tool|>x",
         "plain text of 123 words, New Wordy and new word", " <think>\n\n</think>\n\n", "Größe<|tool|> 你好 <|im_end|>", ""]


def token(content, special):
    return AddedToken(content, special=special, normalized=False)


with open(HERE / "added_tokens_golden.jsonl", "w") as out:
    for name in ["llama2", "llama3", "qwen2", "gemma", "unigram", "tekken", "deepseek_v3"]:
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tokenizers" / name / "tokenizer.json"))
        for role in ["bos_token", "eos_token", "unk_token", "pad_token"]:
            if role in ROLES:
                tokenizer.add_special_tokens({role: token(ROLES[role], True)})
        for content in SPECIAL:
            tokenizer.add_tokens([token(content, True)], special_tokens=True)
        tokenizer.add_tokens([token(content, False) for content in PLAIN])
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
        out.write(json.dumps({"tokenizer": name, "roles": ROLES, "special": SPECIAL, "plain": PLAIN, "size": len(tokenizer),
                              "texts": TEXTS, "ids": ids,
                              "skip": [tokenizer.decode(i, skip_special_tokens=True, clean_up_tokenization_spaces=False) for i in ids]},
                             ensure_ascii=False) + "\n")
