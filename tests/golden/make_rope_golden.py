#!/usr/bin/env python3
"""Writes tests/golden/rope_golden.json: what transformers (5.24.0) makes of rope settings that stand in several places
of a config.json.

    python3 tests/golden/make_rope_golden.py               (needs torch, transformers)

A case: {"change": keys that join a config of head_dim 16, "inverse": inverse frequencies, "scale": attention factor}.
"""
import json
import pathlib

import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

CLASSES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
YARN = {"rope_type": "yarn", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES = [
    {},
    {"rope_theta": 500000.0},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    {"rope_parameters": YARN | {"rope_theta": 10000.0}, "original_max_position_embeddings": 64},
    {"rope_theta": 10000.0, "rope_scaling": {"type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 64},
    {"rope_scaling": YARN | {"original_max_position_embeddings": 128}, "original_max_position_embeddings": 64},
    {"rope_scaling": YARN},
    {"rope_scaling": LLAMA3},
    {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 128}, "rope_theta": 500000.0},
    {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}, "original_max_position_embeddings": 128},
    {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}},
    {"rope_scaling": None, "rope_parameters": {"type": "linear", "factor": 2.0}, "rope_theta": 20000.0},
    {"rope_theta": 30000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
    {"rope_theta": 30000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}},
    {"rope_scaling": YARN | {"original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 0.5}},
    {"rope_scaling": YARN | {"original_max_position_embeddings": 64, "attention_factor": 1.5, "beta_fast": 16, "beta_slow": 2}},
    {"model_type": "mistral", "rope_theta": 1000000.0},
    {"model_type": "qwen2", "rope_theta": 1000000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
    {"model_type": "qwen3", "rope_parameters": {"rope_theta": 5000000, "rope_type": "default"}},
]


def expected(change):
    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 2,
             "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 512}
    values = shape | json.loads(json.dumps(change))
    config = CLASSES[values.pop("model_type", "llama")](**values)
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        inverse, scale = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, 16, 2, dtype=torch.float64) / 16), 1.0
    else:
        inverse, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    return {"change": change, "inverse": [float(x) for x in inverse], "scale": float(scale)}


path = pathlib.Path(__file__).parent / "rope_golden.json"
path.write_text(json.dumps([expected(c) for c in CASES], indent=1) + "\n")
