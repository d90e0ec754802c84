#!/usr/bin/env python3
"""Checks that transformers reads the model and the tokenizer of a run with new tokens as the run had them.

    check_added_tokens.py SOURCE RUN      the model that the run started from, and its output_dir; needs transformers

The tokenizer of SOURCE gets the tokens of RUN/config.yaml from transformers; RUN's must give the same ids for hard texts.
RUN's model must load with as many rows as its config says, and take every new id. Exit code 1 if anything differs.
"""
import sys

import torch
import transformers
import yaml
from tokenizers import AddedToken

source, run = sys.argv[1:]
config = yaml.safe_load(open(f"{run}/config.yaml"))
ours = transformers.AutoTokenizer.from_pretrained(run, local_files_only=True)
theirs = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)


def token(content, special):
    return AddedToken(content, special=special, normalized=False)


for role in ["bos_token", "eos_token", "unk_token", "pad_token"]:
    if role in config["special_tokens"]:
        theirs.add_special_tokens({role: token(config["special_tokens"][role], True)})
for content in config["add_special_tokens"]:
    theirs.add_tokens([token(content, True)], special_tokens=True)
theirs.add_tokens([token(content, False) for content in config["add_tokens"]])

new = [*config["special_tokens"].values(), *config["add_special_tokens"], *config["add_tokens"]]
texts = ["plain text, 123", *new, " ".join(new), "".join(new), *(f"a{n}b {n} c\n{n}" for n in new), "Größe 你好 👩‍👩‍👧"]
failures = 0
for text in texts:
    a, b = ours.encode(text), theirs.encode(text)
    if a != b or ours.decode(a, skip_special_tokens=True) != theirs.decode(b, skip_special_tokens=True):
        failures += 1
        print(f"{text!r}: {a} by the run, {b} by transformers")
for role in ["bos_token", "eos_token", "unk_token", "pad_token"]:
    if getattr(ours, role) != getattr(theirs, role):
        failures += 1
        print(f"{role}: {getattr(ours, role)} in the run, {getattr(theirs, role)} by transformers")
model = transformers.AutoModelForCausalLM.from_pretrained(run, local_files_only=True)
rows = model.get_input_embeddings().weight.shape[0]
if rows != model.config.vocab_size or rows < len(ours) or rows % config["pad_vocab_to_multiple_of"]:
    failures += 1
    print(f"{rows} rows, vocab_size {model.config.vocab_size}, {len(ours)} tokens")
logits = model(torch.tensor([[ours.convert_tokens_to_ids(t) for t in new]])).logits
if logits.shape[-1] != rows or not torch.isfinite(logits).all():
    failures += 1
    print(f"logits {tuple(logits.shape)}")
print(f"{len(texts)} texts, {len(new)} tokens, {rows} rows: {failures} differences")
sys.exit(failures > 0)
