#!/usr/bin/env python3
"""Golden values of matrices in fewer bits: bitsandbytes' NF4 with double quantisation, PyTorch's float8_e4m3fn; and a
folder with such matrices.

    pip install torch bitsandbytes safetensors
    tests/golden/make_quantised_golden.py          # writes tests/golden/quantised_golden.json and quantised_folder
"""

import hashlib
import json
from pathlib import Path

import bitsandbytes
import torch
from bitsandbytes import functional
from safetensors.torch import save_file

# 390 blocks of 64: two groups of scales. Of other columns than multiples of 64 bitsandbytes 0.50 widens wrongly on a CPU.
ROWS, COLUMNS = 130, 192


def values():
    """The same numbers as in tests/layers/quantised_matrix_test.cpp, cubes so that few are large."""
    state, numbers = 1, []
    for _ in range(ROWS * COLUMNS):
        state = (state * 1103515245 + 12345) % 2**31
        numbers.append((state / 2**30 - 1)**3 * 0.05)
    return torch.tensor(numbers, dtype=torch.float64).reshape(ROWS, COLUMNS).bfloat16()


def bits_of(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes().hex()


def hash_of(tensor):
    return hashlib.sha256(bytes.fromhex(bits_of(tensor))).hexdigest()


def nf4(weight):
    codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True, blocksize=64)
    return {"codes": hash_of(codes), "scales": hash_of(state.absmax), "nested": bits_of(state.state2.absmax.float()),
            "mean": bits_of(state.offset.float()), "map": bits_of(state.state2.code.float()),
            "weights": hash_of(functional.dequantize_4bit(codes, state))}


def fp8(weight):
    """Blocks of 128 x 128, scale = largest / 448."""
    rows, columns = weight.shape
    codes, widened = torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    scales = torch.empty(-(-rows // 128), -(-columns // 128))
    for y in range(scales.shape[0]):
        for x in range(scales.shape[1]):
            part = (slice(y * 128, (y + 1) * 128), slice(x * 128, (x + 1) * 128))
            block = weight[part].float()
            scales[y, x] = block.abs().max() / 448
            codes[part] = (block / scales[y, x]).to(torch.float8_e4m3fn)
            widened[part] = (codes[part].float() * scales[y, x]).bfloat16()
    return {"codes": hash_of(codes), "scales": bits_of(scales), "weights": hash_of(widened)}


def folder(weight, path):
    """Matrices as transformers saves them, in small so that the files are; the hashes of the numbers they stand for."""
    weight, tensors, hashes = weight[:66], {}, {}
    for name, kind, nested, dtype in (("nf4", "nf4", True, torch.bfloat16), ("fp4", "fp4", False, torch.float16)):
        codes, state = functional.quantize_4bit(weight.to(dtype), quant_type=kind, compress_statistics=nested, blocksize=64)
        tensors[f"{name}.weight"] = codes
        tensors |= {f"{name}.weight.{part}": t for part, t in state.as_dict(packed=True).items()}
        hashes[name] = hash_of(functional.dequantize_4bit(codes, state).float())
    scales = torch.empty(2, 3)
    codes, widened = torch.empty(66, 192, dtype=torch.float8_e4m3fn), torch.empty(66, 192)
    for y in range(2):
        for x in range(3):  # blocks of 48 x 64, the last ones cut off
            part = (slice(y * 48, (y + 1) * 48), slice(x * 64, (x + 1) * 64))
            scales[y, x] = weight[part].float().abs().max() / 448
            codes[part] = (weight[part].float() / scales[y, x]).to(torch.float8_e4m3fn)
            widened[part] = (codes[part].float() * scales[y, x]).bfloat16().float()
    tensors |= {"fp8.weight": codes, "fp8.weight_scale_inv": scales, "norm.weight": torch.ones(3)}
    hashes["fp8"] = hash_of(widened)
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [48, 64]}}
    (path / "config.json").write_text(json.dumps(config) + "\n")
    return hashes


def main():
    weight = values()
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().nan_to_num(0)
    golden = {"versions": {"torch": torch.__version__, "bitsandbytes": bitsandbytes.__version__},
              "values": hash_of(weight), "nf4": nf4(weight), "fp8": fp8(weight), "e4m3": bits_of(every),
              "folder": folder(weight, Path(__file__).parent / "quantised_folder")}
    path = Path(__file__).parent / "quantised_golden.json"
    path.write_text(json.dumps(golden, indent=0) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


main()
