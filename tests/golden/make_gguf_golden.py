#!/usr/bin/env python3
"""Makes tests/golden/gguf: files that the Python package gguf writes, and the elements that it reads from them.

    python3 tests/golden/make_gguf_golden.py               (needs gguf, numpy, safetensors)
    python3 tests/golden/make_gguf_golden.py --sums FILE.gguf ...
    python3 tests/golden/make_gguf_golden.py --blocks FILE.gguf ROWS

types.gguf      one tensor per type, of random blocks, beside its elements as F32 ("Q4_K" and "Q4_K.f32"); metadata of
                every type
encoded.gguf    floats in every type that Colonnade writes ("Q8_0" and "Q8_0.f32"), beside the pairs that it writes
llama.gguf      a tiny model of each architecture under llama.cpp's names, with q and k permuted as llama.cpp does for
qwen2.gguf      llama; and the same weights under Hugging Face's names, with the config.json
qwen3.gguf

--sums writes FILE.gguf.sums.json: the SHA-256 of every tensor as f32. COLONNADE_GGUF_FOLDER=<folder of such files>
makes gguf_test compare them. --blocks makes a large types.gguf for that.
"""

import hashlib
import json
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent / "gguf"
QUANTISED = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2],
          Type.Q5_K: [0, 2], Type.Q6_K: [208]}  # byte offsets of the f16 numbers in a block


def random_halves(rng, count):
    """f16 bit patterns of every finite magnitude, subnormals and zeros included."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where(bits & 0x7C00 == 0x7C00, bits & 0x83FF, bits)


def random_blocks(rng, kind, rows):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows * (512 // block), size), dtype=np.uint8)
    for offset in SCALES[kind]:
        data[:, offset:offset + 2] = random_halves(rng, len(data)).view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, -1)


def write_types(path, rows):
    rng = np.random.default_rng(14)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    for kind, value in {"UINT8": 200, "INT8": -100, "UINT16": 60000, "INT16": -30000, "UINT32": 4000000000,
                        "INT32": -2000000000, "FLOAT32": 1e-5, "BOOL": True, "STRING": "naïve\0text",
                        "UINT64": (1 << 63) - 1, "INT64": -(1 << 62), "FLOAT64": 1e-300}.items():
        writer.add_key_value("one." + kind, value, gguf.GGUFValueType[kind])
    for name, values in {"strings": ["a", "", "▁b"], "integers": [1, -2, 3], "floats": [0.5, -2.0, 1e30],
                         "bools": [True, False, True]}.items():
        writer.add_array("many." + name, values)
    for kind in QUANTISED:
        data = random_blocks(rng, kind, rows)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        writer.add_tensor(kind.name + ".f32", gguf.dequantize(data, kind))
    halves = random_halves(rng, (2, 3, 16))
    writer.add_tensor("F16", halves.view(np.float16))
    writer.add_tensor("F16.f32", halves.view(np.float16).astype(np.float32))
    brain = rng.integers(0, 0x7F80, (5, 7), dtype=np.uint16)
    writer.add_tensor("BF16", brain.view(np.uint8).reshape(5, 14), raw_dtype=Type.BF16)
    writer.add_tensor("BF16.f32", gguf.dequantize(brain.view(np.uint8).reshape(5, 14), Type.BF16))
    writer.add_tensor("F64", np.array([0.1, -1e30, 3.0]))
    writer.add_tensor("F64.f32", np.array([0.1, -1e30, 3.0]).astype(np.float32))
    writer.add_tensor("I32", np.array([[1, -2], [3, 1 << 30]], dtype=np.int32))
    writer.add_tensor("I8", np.array([1, -2], dtype=np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_encoded(path):
    """Floats of all magnitudes that a type holds, halves between two steps and blocks of zeros among them."""
    rng = np.random.default_rng(16)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("an.integer", 4000000000)
    writer.add_float32("a.number", 1e-5)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "naïve\0text")
    writer.add_array("many.texts", ["a", "", "▁b"])
    writer.add_array("many.numbers", [0.5, -2.0, 1e30])
    writer.add_array("many.integers", [1, -2, 3])
    for kind in [Type.F32, Type.F16, Type.BF16, Type.Q8_0]:
        values = (rng.standard_normal((6, 3, 64)) * 10.0 ** rng.integers(-9, 4, (6, 3, 64))).astype(np.float32)
        values[1] = rng.standard_normal((3, 64)).astype(np.float32)
        values[2, 0, :32] = 0
        values[2, 0, 32:] = 1e-30  # smaller than any step that an f16 can scale
        values[3, :, 0] = 127
        values[3, :, 1:] = rng.integers(-252, 253, (3, 63)) / 2
        writer.add_tensor(kind.name, gguf.quantize(values, kind), raw_dtype=kind)
        writer.add_tensor(kind.name + ".f32", values)
    writer.add_tensor("vector", np.array([1, 2, 3], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permuted(weight, heads):
    """The order of rows that llama.cpp's llama architecture needs."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_model(arch, heads=4, kv_heads=2, head_dim=8, hidden=16, wide=24, vocab=12):
    rng = np.random.default_rng(15)
    tied = arch == "qwen2"
    weights = {}

    def weight(name, *shape):
        weights[name] = rng.standard_normal(shape).astype(np.float32)

    weight("model.embed_tokens.weight", vocab, hidden)
    weight("model.norm.weight", hidden)
    if not tied:
        weight("lm_head.weight", vocab, hidden)
    for layer in range(2):
        at = f"model.layers.{layer}."
        for name, rows in {"q": heads, "k": kv_heads, "v": kv_heads}.items():
            weight(f"{at}self_attn.{name}_proj.weight", rows * head_dim, hidden)
            if arch == "qwen2":
                weight(f"{at}self_attn.{name}_proj.bias", rows * head_dim)
            if arch == "qwen3" and name != "v":
                weight(f"{at}self_attn.{name}_norm.weight", head_dim)
        weight(at + "self_attn.o_proj.weight", hidden, heads * head_dim)
        weight(at + "mlp.gate_proj.weight", wide, hidden)
        weight(at + "mlp.up_proj.weight", wide, hidden)
        weight(at + "mlp.down_proj.weight", hidden, wide)
        weight(at + "input_layernorm.weight", hidden)
        weight(at + "post_attention_layernorm.weight", hidden)
    save_file(weights, HERE / f"{arch}.safetensors")

    config = {"model_type": arch, "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": wide,
              "num_hidden_layers": 2, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
              "head_dim": head_dim, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 50000.0,
              "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2}
    writer = gguf.GGUFWriter(HERE / f"{arch}.gguf", arch)
    writer.add_block_count(2)
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("none")
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if arch == "llama":  # Llama 3's scaling of the rotary frequencies is a tensor
        config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                  "original_max_position_embeddings": 8192}
        wavelength = 2 * np.pi * 50000.0 ** (np.arange(0, head_dim, 2) / head_dim)
        smooth = (8192 / wavelength - 1) / 3
        divisors = np.where(wavelength < 2048, 1, np.where(wavelength > 8192, 8, 1 / ((1 - smooth) / 8 + smooth)))
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], 2)
    for name, value in weights.items():
        if arch == "llama" and ".q_proj" in name:
            value = permuted(value, heads)
        if arch == "llama" and ".k_proj" in name:
            value = permuted(value, kv_heads)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (HERE / f"{arch}.json").write_text(json.dumps(config, indent=2) + "\n")


def write_sums(path):
    sums = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        sums[tensor.name] = hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).hexdigest()
    pathlib.Path(path + ".sums.json").write_text(json.dumps(sums) + "\n")


if len(sys.argv) > 1 and sys.argv[1] == "--sums":
    for file in sys.argv[2:]:
        write_sums(file)
elif len(sys.argv) > 1:
    write_types(sys.argv[2], int(sys.argv[3]))
else:
    HERE.mkdir(exist_ok=True)
    write_types(HERE / "types.gguf", 2)
    write_encoded(HERE / "encoded.gguf")
    for name in ["llama", "qwen2", "qwen3"]:
        write_model(name)
