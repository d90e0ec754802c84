#!/usr/bin/env python3
"""Writes tests/golden/muon_golden.json: three updates by torch.optim.Muon (torch 2.15, adjust_lr_fn "match_rms_adamw") of
matrices of several forms, in float64 throughout: torch takes the steps of Newton and Schulz in
bfloat16, which means float64 here.

    python3 tests/golden/make_muon_golden.py
"""
import json
import pathlib

import torch

torch.manual_seed(1)
torch.bfloat16 = torch.float64
cases = []
for rows, columns in [(6, 10), (10, 6), (8, 8), (8, 16), (16, 8)]:
    weight = torch.nn.Parameter(torch.randn(rows, columns, dtype=torch.float64))
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizer = torch.optim.Muon([weight], **settings, nesterov=True, adjust_lr_fn="match_rms_adamw")
    case = {"rows": rows, "columns": columns, **settings, "start": weight.detach().flatten().tolist(), "gradients": [], "weights": []}
    for _ in range(3):
        weight.grad = torch.randn(rows, columns, dtype=torch.float64)
        case["gradients"].append(weight.grad.flatten().tolist())
        optimizer.step()
        case["weights"].append(weight.detach().flatten().tolist())
    case["momentum_buffer"] = optimizer.state[weight]["momentum_buffer"].flatten().tolist()
    cases.append(case)
pathlib.Path(__file__).with_name("muon_golden.json").write_text(json.dumps(cases) + "\n")
