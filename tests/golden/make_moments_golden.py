"""Writes tests/golden/moments_golden.json: AdamW's moments after 200 steps, and what bitsandbytes' 8-bit blockwise
quantisation (its dynamic maps, blocks of 256, on the CPU) makes of them. Needs torch and bitsandbytes.

    python tests/golden/make_moments_golden.py
"""
import json
import pathlib

import bitsandbytes.functional as bnb
import torch

torch.manual_seed(1)
count, beta1, beta2 = 512, 0.9, 0.999
sizes = 10 ** (0.7 * torch.randn(count, dtype=torch.float64))  # of the gradients of each element
m, v = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
for _ in range(200):
    g = 1e-4 * sizes * torch.randn(count, dtype=torch.float64)
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g


def rounded(values, signed):
    code = bnb.create_dynamic_map(signed=signed)
    return bnb.dequantize_blockwise(*bnb.quantize_blockwise(values, code=code, blocksize=256))


m, v = m.float(), v.float()
golden = {"m": m, "v": v, "bitsandbytes_m": rounded(m, True), "bitsandbytes_v": rounded(v, False)}
path = pathlib.Path(__file__).with_name("moments_golden.json")
path.write_text(json.dumps({name: [float(f"{x:.9g}") for x in t] for name, t in golden.items()}) + "\n")
