#!/usr/bin/env python3
"""Compares GGUF files that `export` writes with the models they come from, under a real llama.cpp (pip install numpy
xllamacpp): logits within a bound, token ids of hard texts and of a chat, adapters.

    python3 tests/llama_cpp/check_export.py build/bin/colonnade               tiny models of every family
    python3 tests/llama_cpp/check_export.py build/bin/colonnade MODEL ...     folders of models of one's own

A figure is the largest difference of two logits, divided by the standard deviation of all logits. Colonnade computes
the folder's model on the CPU; its weights are f32 unless the folder holds bf16. Exits with 77 without the packages.
"""
import itertools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    import numpy
    from llama_cpp import Model
except ImportError as missing:
    print(f"skipped: {missing}; pip install numpy xllamacpp")
    sys.exit(77)

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
# llama.cpp keeps keys and values as f16; its products of BF16 and Q8_0 round activations to these types, too.
BOUNDS = {"float32": 2e-2, "float16": 2e-2, "bfloat16": 1.2e-1, "q8_0": 5e-1}
TEXTS = ["x", "Hello, world!  Two  spaces.", " leading and trailing ", "line\n\n\nbreaks\r\n\tand tabs\n", "1234567890 3.14 2026-11-30",
         "Größe naïve café", "你好,世界 日本語 한국어", "😀👩‍👩‍👧 ❤️", "don't we'll I'VE HTTPServer camelCase", "    if (x == 3) {\n        y();\n    }",
         "https://a.b/c?d=e&f", "\u00a0\u3000\u2028", "नमस्ते สวัสดี"]
CHAT = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}" \
       "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def rendered(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


# --- safetensors ------------------------------------------------------------------------------------------------------

def write_tensors(path, tensors):
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + 4 * values.size]}
        offset += 4 * values.size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(numpy.ascontiguousarray(values, dtype="<f4").tobytes())


def read_tensors(path):
    data = pathlib.Path(path).read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    kinds = {"F32": "<f4", "I32": "<i4"}
    return {name: numpy.frombuffer(data[begin + entry["data_offsets"][0]:begin + entry["data_offsets"][1]],
                                   kinds[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in json.loads(data[8:begin]).items() if name != "__metadata__"}


# --- Tiny models ------------------------------------------------------------------------------------------------------

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
FAMILIES = {
    "llama": ({"model_type": "llama"}, "llama3"),
    "llama_biases_linear": ({"model_type": "llama", "attention_bias": True, "mlp_bias": True, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, "llama2"),
    "llama_tied_llama3": ({"model_type": "llama", "tie_word_embeddings": True, "rope_scaling": LLAMA3}, "gpt4o"),
    "llama_yarn": ({"model_type": "llama", "rope_scaling": YARN}, "llama3"),
    "llama_yarn_attention_factor": ({"model_type": "llama", "rope_scaling": dict(YARN, attention_factor=1.3)}, "llama3"),
    "llama_sentencepiece": ({"model_type": "llama"}, "sentencepiece"),
    "mistral": ({"model_type": "mistral", "sliding_window": None, "head_dim": 32}, "tekken"),
    "qwen2": ({"model_type": "qwen2", "tie_word_embeddings": True}, "qwen2"),
    "qwen2_linear": ({"model_type": "qwen2", "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, "qwen2"),
    "qwen3": ({"model_type": "qwen3", "head_dim": 32}, "qwen2"),
    "qwen3_yarn": ({"model_type": "qwen3", "rope_scaling": YARN}, "qwen3_5"),
}
HIDDEN, WIDE, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2


def token_ids(tokenizer):
    ids = dict(tokenizer["model"]["vocab"])
    ids.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    return ids


def write_tokenizer(folder, family):
    """A golden tokenizer with the markers of a chat and a template. Returns its ids, or some of them with the last."""
    if family == "sentencepiece":
        shutil.copy(GOLDEN / "template_golden.model", folder / "tokenizer.model")
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT}))
        return {"<|im_end|>": 5, "the last": 419}
    tokenizer = json.loads((GOLDEN / "tokenizers" / family / "tokenizer.json").read_text())
    # GGUF has no word for tokens that are found as whole words alone, or that take spaces with them.
    flags = ("single_word", "lstrip", "rstrip")
    added = [token for token in tokenizer["added_tokens"] if not any(token[flag] for flag in flags)]
    for text in ["<|im_start|>", "<|im_end|>"]:
        if all(token["content"] != text for token in added):
            added.append({"content": text, "normalized": False, "special": True, **dict.fromkeys(flags, False)})
    vocabulary = tokenizer["model"]["vocab"]
    following = itertools.count(max(vocabulary.values()) + 1)
    for token in added:
        token["id"] = vocabulary[token["content"]] if token["content"] in vocabulary else next(following)
    tokenizer["added_tokens"] = added
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    ids = token_ids(tokenizer)
    settings = {"chat_template": CHAT, "eos_token": "</s>" if "</s>" in ids else "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return ids


def write_model(folder, settings, family):
    folder.mkdir()
    ids = write_tokenizer(folder, family)
    random = numpy.random.default_rng(7)
    vocab = (max(ids.values()) + 64) // 32 * 32
    head_dim = settings.get("head_dim", HIDDEN // HEADS)
    config = {"vocab_size": vocab, "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": head_dim, "hidden_act": "silu",
              "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "tie_word_embeddings": False,
              "eos_token_id": ids["<|im_end|>"], **settings}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}

    def matrix(name, rows, columns, bias=False):
        tensors[name + ".weight"] = random.standard_normal((rows, columns)) / columns**0.5
        if bias:
            tensors[name + ".bias"] = random.standard_normal(rows) * 0.3

    def norm(name, size):
        tensors[name + ".weight"] = 1 + 0.2 * random.standard_normal(size)

    kind = settings["model_type"]
    attention_bias, mlp_bias = settings.get("attention_bias", False), settings.get("mlp_bias", False)
    matrix("model.embed_tokens", vocab, HIDDEN)
    tensors["model.embed_tokens.weight"] *= 3
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        norm(at + "input_layernorm", HIDDEN)
        norm(at + "post_attention_layernorm", HIDDEN)
        for name, heads in {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}.items():
            matrix(f"{at}self_attn.{name}_proj", heads * head_dim, HIDDEN, attention_bias or kind == "qwen2")
            if kind == "qwen3" and name != "v":
                norm(f"{at}self_attn.{name}_norm", head_dim)
        matrix(at + "self_attn.o_proj", HIDDEN, HEADS * head_dim, attention_bias)
        matrix(at + "mlp.gate_proj", WIDE, HIDDEN, mlp_bias)
        matrix(at + "mlp.up_proj", WIDE, HIDDEN, mlp_bias)
        matrix(at + "mlp.down_proj", HIDDEN, WIDE, mlp_bias)
    norm("model.norm", HIDDEN)
    if not config["tie_word_embeddings"]:
        matrix("lm_head", vocab, HIDDEN)
    write_tensors(folder / "model.safetensors", tensors)


def write_adapter(folder, base, rslora):
    folder.mkdir()
    config = json.loads((base / "config.json").read_text())
    random = numpy.random.default_rng(8)
    head_dim, rank = config["head_dim"], 4
    sizes = {"self_attn.q_proj": (HEADS * head_dim, HIDDEN), "self_attn.k_proj": (KV_HEADS * head_dim, HIDDEN),
             "self_attn.v_proj": (KV_HEADS * head_dim, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * head_dim),
             "mlp.gate_proj": (WIDE, HIDDEN), "mlp.up_proj": (WIDE, HIDDEN), "mlp.down_proj": (HIDDEN, WIDE)}
    tensors = {}
    for layer in range(LAYERS):
        for name, (rows, columns) in sizes.items():
            at = f"base_model.model.model.layers.{layer}.{name}."
            tensors[at + "lora_A.weight"] = random.standard_normal((rank, columns)) / columns**0.5
            tensors[at + "lora_B.weight"] = random.standard_normal((rows, rank)) * 0.15
    write_tensors(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank, "lora_alpha": 6,
        "use_rslora": rslora, "target_modules": sorted(name.split(".")[1] for name in sizes)}))


# --- Comparison -------------------------------------------------------------------------------------------------------

class Check:
    def __init__(self, colonnade, work):
        self.colonnade, self.work, self.failures, self.notices = colonnade, work, 0, ""

    def run(self, *arguments):
        done = subprocess.run([self.colonnade, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: exit {done.returncode}: {done.stderr}")
        return done.stderr

    def ours(self, model, prompts, *options):
        """(ids, logits) of each prompt."""
        out = self.work / "logits.safetensors"
        self.run("generate", model, *(word for prompt in prompts for word in ("-p", prompt)), "--logits-out", out, *options)
        tensors = read_tensors(out)
        out.unlink()
        numbers = ["", *(f".{i}" for i in range(1, len(prompts)))]
        return [(tensors["input_ids" + n][0].tolist(), tensors["logits" + n][0].astype(numpy.float64)) for n in numbers]

    def say(self, fine, text):
        self.failures += not fine
        print(f"{'ok    ' if fine else 'WRONG '} {text}", flush=True)

    def export(self, source, name, *options):
        path = self.work / name
        path.unlink(missing_ok=True)
        self.notices = self.run("export", source, path, *options)
        return str(path)

    def compare_ids(self, model, name, texts, expected, special, add_special):
        wrong = [text for text, (ids, _) in zip(texts, expected) if model.tokenize(text, special, add_special) != ids]
        self.say(not wrong, f"{name}: ids of {len(texts) - len(wrong)} of {len(texts)} texts are equal {wrong[:2] if wrong else ''}")

    def compare_logits(self, model, name, cases, bound, adapter=None):
        worst, equal, count = 0.0, 0, 0
        for ids, logits in cases:
            found = model.logits(ids, adapter)
            worst = max(worst, float(numpy.abs(found - logits).max() / logits.std()))
            equal += int((found.argmax(1) == logits.argmax(1)).sum())
            count += len(ids)
        self.say(worst <= bound, f"{name}: logits differ by {worst:.1e} (bound {bound:.0e}); top token equal at {equal} of {count}")

    def check_model(self, name, folder, dtypes, render=rendered):
        plain = self.ours(folder, TEXTS, "--raw")
        chats = self.ours(folder, TEXTS)
        for dtype in dtypes:
            model = Model(self.export(folder, "model.gguf", "--dtype", dtype))
            self.compare_logits(model, f"{name} {dtype}", [max(plain, key=lambda case: len(case[0])), chats[9]], BOUNDS[dtype])
        for notice in self.notices.splitlines():
            print(f"       {notice}")
        if "add_space_prefix is false" not in self.notices:  # a chat model of SentencePiece: only chats are equal
            self.compare_ids(model, f"{name} plain texts", TEXTS, plain, False, True)
        self.compare_ids(model, f"{name} chats", [render(text) for text in TEXTS], chats, True, False)
        template = model.chat_template()
        self.say(template is not None, f"{name}: the chat template is there")
        if template and "<|im_end|>" in template:
            ends = model.tokenize("<|im_end|>", True, False)
            self.say(len(ends) == 1 and model.ends_answers(ends[0]), f"{name}: <|im_end|> ends an answer")
        if model.warnings:
            self.say(False, f"{name}: llama.cpp warns: {model.warnings.strip()}")

    def check_mistake(self, folder):
        """A file that lacks a key of the rotary embedding loads without a word. The bounds have to be below that."""
        path = self.export(folder, "whole.gguf", "--dtype", "float32")
        broken = self.work / "broken.gguf"
        broken.write_bytes(pathlib.Path(path).read_bytes().replace(b"rope.freq_base", b"rope.xxxx_xxxx"))
        ids, logits = self.ours(folder, TEXTS[9:10], "--raw")[0]
        difference = float(numpy.abs(Model(str(broken)).logits(ids) - logits).max() / logits.std())
        self.say(difference > 10 * BOUNDS["float32"], f"a file without rope.freq_base: logits differ by {difference:.1e}")

    def check_adapter(self, name, base, rslora):
        folder = self.work / f"{name}_adapter"
        write_adapter(folder, base, rslora)
        adapted = self.ours(folder, TEXTS[:6], "--raw", "--base", base)
        plain = self.ours(base, TEXTS[:6], "--raw")
        change = max(float(numpy.abs(a[1] - b[1]).max() / b[1].std()) for a, b in zip(adapted, plain))
        self.say(change > 0.5, f"{name} adapter: changes logits by {change:.2f}")
        model = Model(self.export(base, "base.gguf", "--dtype", "float32"))
        adapter = self.export(folder, "adapter.gguf", "--adapter", "--base", base)
        self.compare_logits(model, f"{name} adapter", adapted, BOUNDS["float32"], adapter)
        merged = Model(self.export(folder, "merged.gguf", "--base", base, "--dtype", "float32"))
        self.compare_logits(merged, f"{name} merged", adapted, BOUNDS["float32"])


def main(colonnade, models):
    work = pathlib.Path(tempfile.mkdtemp())
    check = Check(colonnade, work)
    try:
        for folder in models:
            from transformers import AutoTokenizer
            tokenizer = AutoTokenizer.from_pretrained(folder)
            check.check_model(os.path.basename(folder.rstrip("/")), folder, BOUNDS, lambda text: tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True))
        if not models:
            for name, (settings, tokenizer) in FAMILIES.items():
                write_model(work / name, settings, tokenizer)
                check.check_model(name, work / name, BOUNDS if name in ("llama", "qwen3") else ["float32"])
            check.check_mistake(work / "llama")
            check.check_adapter("llama", work / "llama", rslora=True)
            check.check_adapter("qwen3", work / "qwen3", rslora=False)
    finally:
        shutil.rmtree(work)
    print(f"{check.failures} failures")
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
