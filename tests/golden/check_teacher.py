#!/usr/bin/env python3
"""Compares the lists that `colonnade teach` wrote with transformers' log-probabilities in float32.

    python3 -m venv ENV && ENV/bin/pip install h5py torch transformers
    ENV/bin/python check_teacher.py MODEL TAUGHT.h5 [ROWS]
"""
import sys

import h5py
import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
file = h5py.File(sys.argv[2])
begins = file["row_begins"][:]
lists, other_tokens, worst = 0, 0, 0.0
for row in range(min(int(sys.argv[3]) if len(sys.argv) > 3 else 6, len(begins) - 1)):
    tokens = slice(begins[row], begins[row + 1])
    with torch.no_grad():
        logits = model(torch.tensor(file["input_ids"][tokens])[None].long()).logits[0]
    expected = torch.log_softmax(logits.double(), -1)
    for i, (ids, log_probs) in enumerate(zip(file["teacher_ids"][tokens], file["teacher_log_probs"][tokens])):
        if ids[0] < 0:
            continue
        lists += 1
        found = expected[i - 1, torch.tensor(ids).long()]
        worst = max(worst, (found - torch.tensor(log_probs)).abs().max().item())
        other_tokens += set(expected[i - 1].topk(len(ids)).indices.tolist()) != set(ids.tolist())
print(f"{lists} lists: log-probabilities differ by up to {worst:.1e}, {other_tokens} lists have other tokens")
sys.exit(worst > 1e-3 or lists == 0)
