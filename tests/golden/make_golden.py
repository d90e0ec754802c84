#!/usr/bin/env python3
"""Golden values from transformers, to which tests/train/model/golden_test.cpp compares Colonnade.

    make_golden.py                            rewrites tests/golden/models/<name>/ for every tiny random model below
    make_golden.py --model FOLDER --out DIR   the same for your own Hugging Face folder (Llama, Mistral, Qwen2, Qwen3);
                                              with COLONNADE_GOLDEN_DIR=DIR golden_test reads it too

It needs torch, transformers and safetensors, no network (the committed values: torch 2.11, transformers 5.17). Your own
model takes 50 bytes of memory and 16 bytes of disk per parameter. Same seed, versions and kind of CPU: same bytes.

A golden folder contains config.json, model.safetensors (or shards with their index) and

golden.safetensors, computed in float64 from the weights of the file:
    input_ids      i32 [packs, length]
    document_ends  i32 [documents]        ends (exclusive) in the flat [packs * length] row; no document crosses a pack
    positions      i32 [packs, length]    restart at 0 in every document
    rows, targets  i32 [targets]          flat row, token that it predicts; ascending rows, one row twice
    weights        f32 [targets]          the last document has none, like long padding
    logits         f64 [packs * length, vocab]
    loss           f64 [1]                sum(weight * nll) / sum(weight)
    grad.<name>    f64                    d loss / d parameter; tied: sum of both uses, as model.embed_tokens.weight
    losses         f64 [steps]            before each optimizer step, on the same batch
    grad_norms     f64 [steps]            global L2 norm before clipping
    step<N>.<name> f32                    weights after the N = `steps` optimizer steps; only float32 models
golden.json:
    recipe         torch's AdamW, decay on matrices only (embeddings included), torch's clip_grad_norm_, which
                   scales by max_grad_norm / (norm + 1e-6) when that is below 1
    float32        by prefix of the names above: relative L2 error of transformers' float32 run, for comparison with ours
    bfloat16       if the file's weights are bfloat16: the same for its bfloat16 run on a CPU, for logits, loss, all
                   gradients together ("grad.") and each by its name; both runs see the same weights

Attention is causal within a document: query i sees key j when j <= i, and i - j < sliding_window if the layer has one.

transformers computes norms, softmax and rotary angles in float32 even for a float64 model. Here the name torch.float32
means float64 while its code runs (`computing_in`); a finite difference of the loss proves each time that no float32
rounding is left. A second check: every document alone, with transformers' own mask, gives the same logits.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import zlib
from unittest import mock

import torch
import transformers
from safetensors.torch import save_file

PACKS = 2
RECIPE = {"steps": 10, "lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0}

SHAPE = dict(vocab_size=47, hidden_size=32, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False)


def rope(kind="default", theta=100.0, **scaling):
    return {"rope_type": kind, "rope_theta": theta, **scaling}


# name: (config, None for the config.json of transformers v5, or the additional entries of a v4 config.json).
# Rotary bases and original lengths are small, so that scaling matters within documents of ten to twenty tokens.
MODELS = {
    "llama_tied": (transformers.LlamaConfig(**SHAPE | dict(tie_word_embeddings=True), rope_parameters=rope(theta=1e4)), None),
    "llama_untied_rope_llama3": (transformers.LlamaConfig(**SHAPE, rms_norm_eps=1e-5, rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)), {}),
    "llama_yarn": (transformers.LlamaConfig(**SHAPE | dict(num_key_value_heads=1), rope_parameters=rope(
        "yarn", factor=4.0, beta_fast=4.0, beta_slow=0.25, original_max_position_embeddings=32)), None),
    "llama_linear": (
        transformers.LlamaConfig(**SHAPE | dict(num_key_value_heads=4), rope_parameters=rope("linear", factor=3.0)), {}),
    "mistral_sliding_window": (
        transformers.MistralConfig(**SHAPE, head_dim=12, sliding_window=7, rope_parameters=rope()), {}),
    # As published by Qwen: a window is given but switched off.
    "qwen2_bias": (transformers.Qwen2Config(**SHAPE, rope_parameters=rope()),
                   {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": (transformers.Qwen3Config(**SHAPE, head_dim=12, rope_parameters=rope()), None),
}

# Sizes for the GPU kernels, weights in bfloat16. Packs of this length have several tiles, the last one partial.
BFLOAT16_SHAPE = dict(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                      max_position_embeddings=128, dtype="bfloat16")
BFLOAT16_LENGTH = 100
BFLOAT16_MODELS = {
    "bfloat16_llama_head_64": transformers.LlamaConfig(
        **BFLOAT16_SHAPE, head_dim=64, intermediate_size=192, tie_word_embeddings=True, rope_parameters=rope(theta=1e4)),
    "bfloat16_qwen3_head_128": transformers.Qwen3Config(
        **BFLOAT16_SHAPE, head_dim=128, intermediate_size=64, tie_word_embeddings=False, rope_parameters=rope(theta=1e4)),
}


def write_tiny_model(folder, config, v4, dtype=torch.float32):
    """Random weights, as save_pretrained writes them. No norm is 1 and no bias is 0."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    random = torch.Generator().manual_seed(zlib.crc32(folder.name.encode()))
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(1 + 0.2 * noise if "norm" in name else 0.3 * noise if p.ndim == 1 else noise / config.hidden_size**0.5)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    if v4 is not None:
        written = json.loads((folder / "config.json").read_text())
        scaling = written.pop("rope_parameters")
        kind = scaling.pop("rope_type")
        key = "type" if kind == "linear" else "rope_type"  # the older kind has the older spelling
        written |= {"torch_dtype": written.pop("dtype"), "rope_theta": scaling.pop("rope_theta"),
                    "rope_scaling": None if kind == "default" else {key: kind, **scaling}}
        written.pop("layer_types", None)
        (folder / "config.json").write_text(json.dumps(written | v4, indent=2) + "\n")


def random_batch(vocab, length, seed):
    random = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=random))

    bounds = [0]
    while bounds[-1] < PACKS * length:
        rest_of_pack = length - bounds[-1] % length
        bounds.append(bounds[-1] + min(draw(3, max(5, 2 * length // 3)), rest_of_pack))
    documents = list(zip(bounds, bounds[1:]))
    ids = torch.randint(0, vocab, (PACKS * length,), generator=random)
    positions = torch.cat([torch.arange(end - start) for start, end in documents])
    triples = []
    for start, end in documents[:-1]:
        for row in range(start + (end - start) // 3, end - 1):
            if draw(0, 5) > 0:  # a fifth of the answer has no loss, like a tool's reply
                triples.append((row, int(ids[row + 1]), (0.5, 1.0, 1.0, 2.0)[draw(0, 4)]))
    row = triples[len(triples) // 2][0]
    triples.insert(len(triples) // 2, (row, draw(0, vocab), 0.75))  # two branches at one row
    rows, targets, weights = zip(*triples)
    lists = {"document_ends": bounds[1:], "rows": rows, "targets": targets, "weights": weights}
    return {"input_ids": ids.view(PACKS, length), "positions": positions.view(PACKS, length)} | {
        name: torch.tensor(values) for name, values in lists.items()}


@contextlib.contextmanager
def computing_in(dtype):
    """Runs transformers' code with float32 replaced by `dtype`."""
    with mock.patch.object(torch, "float32", dtype), mock.patch.object(torch, "float", dtype), \
            mock.patch.object(torch.Tensor, "float", lambda self: self.to(dtype)):
        yield


def attention_mask(config, batch, dtype):
    length = batch["input_ids"].shape[1]
    row = torch.arange(PACKS * length)
    document = torch.bucketize(row, batch["document_ends"], right=True).view(PACKS, length)
    distance = row[:length, None] - row[None, :length]
    seen = (document[:, :, None] == document[:, None, :]) & (distance >= 0)
    window = getattr(config, "sliding_window", None)

    full, windowed = (torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]
                      for visible in (seen, seen & (distance < window) if window else seen))
    by_layer = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    return {"full_attention": full, "sliding_attention": windowed} if by_layer else windowed


def logits_and_loss(model, batch, mask):
    logits = model(input_ids=batch["input_ids"], position_ids=batch["positions"], attention_mask=mask, use_cache=False).logits
    logits = logits.flatten(0, 1)
    scores = logits.float() if logits.dtype == torch.bfloat16 else logits  # as in transformers' own loss
    nll = torch.nn.functional.cross_entropy(scores[batch["rows"]], batch["targets"], reduction="none")
    weights = batch["weights"].to(nll.dtype)
    return logits, (weights * nll).sum() / weights.sum()


def check(model, batch, mask, logits):
    """Checks packing and float64 as the docstring above describes; moves the weights by rounding errors."""
    ids, start = batch["input_ids"].flatten(), 0
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    with torch.no_grad():
        for end in batch["document_ends"].tolist():
            alone = model(input_ids=ids[None, start:end], use_cache=False).logits[0]
            error = (alone - logits[start:end]).abs().max().item()
            assert error < 1e-11, f"a packed document differs from the same alone by {error}"
            start = end
        h, losses = 1e-4, []
        for step in (h, -2 * h, h):  # along the gradient: forward, back, return
            for p in model.parameters():
                p += step / norm * p.grad
            losses.append(logits_and_loss(model, batch, mask)[1].item())
        slope = (losses[0] - losses[1]) / (2 * h)
        assert abs(slope / norm - 1) < 1e-6, f"slope {slope} against gradient norm {norm}: float32 inside?"


def run(folder, batch, dtype):
    """Golden tensors in `dtype` from forward, backward and the optimizer steps of RECIPE."""
    single = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with computing_in(dtype):
        model = transformers.AutoModelForCausalLM.from_config(single.config, dtype=dtype, attn_implementation="eager")
        model.load_state_dict(single.state_dict())
        mask = attention_mask(model.config, batch, dtype)
        named = dict(model.named_parameters())
        groups = [{"params": [p for p in named.values() if p.ndim > 1], "weight_decay": RECIPE["weight_decay"]},
                  {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, RECIPE["lr"], RECIPE["betas"], RECIPE["eps"])
        losses, norms = [], []
        for step in range(RECIPE["steps"]):
            optimizer.zero_grad()
            logits, loss = logits_and_loss(model, batch, mask)
            loss.backward()
            if step == 0:
                golden = {"logits": logits.detach(), "loss": loss.detach().view(1)}
                golden |= {f"grad.{name}": p.grad.clone() for name, p in named.items()}
                if dtype == torch.float64:
                    check(model, batch, mask, logits)
                    model.load_state_dict(single.state_dict())
            losses.append(loss.detach())
            norms.append(torch.nn.utils.clip_grad_norm_(named.values(), RECIPE["max_grad_norm"]).detach())
            optimizer.step()
    golden |= {"losses": torch.stack(losses), "grad_norms": torch.stack(norms)}
    return golden | {f"step{RECIPE['steps']}.{name}": p.detach() for name, p in named.items()}


def run_bfloat16(folder, batch):
    """Logits, loss and gradients of transformers in bfloat16."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    logits, loss = logits_and_loss(model, batch, attention_mask(model.config, batch, torch.bfloat16))
    loss.backward()
    gradients = {f"grad.{name}": p.grad for name, p in model.named_parameters()}
    return {"logits": logits.detach(), "loss": loss.detach().view(1)} | gradients


def errors_of(found, golden, prefixes):
    """|found - golden|_2 / |golden|_2 over all tensors whose names have a common prefix, by prefix."""
    errors = {}
    for prefix in prefixes:
        keys = [key for key in golden if key.startswith(prefix)]
        off = torch.cat([(found[key].double() - golden[key]).flatten() for key in keys]).norm()
        errors[prefix] = float(f"{off / torch.cat([golden[key].flatten() for key in keys]).norm():.3g}")
    return errors


def write_golden(folder, seed, length):
    config = transformers.AutoConfig.from_pretrained(folder)
    batch = random_batch(config.vocab_size, length, seed)
    golden = run(folder, batch, torch.float64)
    prefixes = ("logits", "grad.", "losses", "grad_norms", "step")
    report = {"recipe": RECIPE, "seed": seed, "float32": errors_of(run(folder, batch, torch.float32), golden, prefixes)}
    stored = {k: v.float() if k.startswith("step") else v for k, v in golden.items()}
    if config.dtype == torch.bfloat16:
        names = ["logits", "loss", "grad."] + [key for key in golden if key.startswith("grad.")]
        first_step = {k: v for k, v in golden.items() if k in names}
        report["bfloat16"] = errors_of(run_bfloat16(folder, batch), first_step, names)
        stored = {k: v for k, v in stored.items() if not k.startswith("step")}
    stored |= {k: v.float() if k == "weights" else v.int() for k, v in batch.items()}
    save_file({k: v.contiguous() for k, v in stored.items()}, folder / "golden.safetensors", metadata={"format": "pt"})
    (folder / "golden.json").write_text(json.dumps(report, indent=2) + "\n")
    errors = report["float32"] | {f"bfloat16 {k}": v for k, v in report.get("bfloat16", {}).items() if k[-1] in ".s"}
    print(f"{folder}: loss {golden['losses'][0]:.4f} -> {golden['losses'][-1]:.4f}, float32 {errors}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="Hugging Face folder (default: make the tiny models)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "models", help="output folder")
    parser.add_argument("--length", type=int, default=37, help="tokens in each of the two packs of float32 models")
    parser.add_argument("--only", help="name of the only tiny model to make")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    if args.model:
        args.out.mkdir(parents=True, exist_ok=True)
        for file in [args.model / "config.json", *args.model.glob("model*.safetensors*")]:
            shutil.copy(file, args.out)
        return write_golden(args.out, args.seed, args.length)
    torch.set_num_threads(1)
    for name, (config, v4) in MODELS.items():
        if args.only in (None, name):
            write_tiny_model(args.out / name, config, v4)
            write_golden(args.out / name, args.seed, args.length)
    for name, config in BFLOAT16_MODELS.items():
        if args.only in (None, name):
            write_tiny_model(args.out / name, config, None, torch.bfloat16)
            write_golden(args.out / name, args.seed, BFLOAT16_LENGTH)


if __name__ == "__main__":
    main()
