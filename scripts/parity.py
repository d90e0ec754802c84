#!/usr/bin/env python3
"""Compares loss curves of `train` and PyTorch on the same packed batches: a small Llama with the same random weights.

    parity.py --work /tmp/parity                                       200 steps, on a GPU if available
    parity.py --work /tmp/parity --device cpu --steps 5 --hidden 128 --layers 2 --length 256

Writes a model folder and rows of token ids (the first third of each document is a prompt without loss), trains with
build/bin/train, and reads metrics.jsonl. Then runs the same steps with transformers' Llama, torch's AdamW and clipping:

    float32     everything in float32
    autocast    weights in float32, computed in bfloat16 under autocast
    bfloat16    weights and activations in bfloat16, gradients summed in float32, AdamW on float32 masters

Prints the largest and the mean difference between the loss curves. The differences of autocast and bfloat16 to float32
show what to expect from a trainer that computes in bfloat16.

The packs follow the packer's rule (data/packing/packer.h: shuffle, next fit, shuffle the packs), implemented again
here. If the two differed, the curves would diverge at the first step.
"""

import argparse
import json
import math
import pathlib
import shutil
import subprocess
import time

import numpy as np
import torch
import transformers

SEED = 42
ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPE = {"learning_rate": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0}


def write_model(folder, args):
    torch.manual_seed(SEED)
    config = transformers.LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.hidden, intermediate_size=args.hidden * 11 // 4 // 64 * 64,
        num_hidden_layers=args.layers, num_attention_heads=args.hidden // 64, head_dim=64,
        num_key_value_heads=max(args.hidden // 128, 1), max_position_embeddings=args.length, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def write_rows(path, args):
    """Documents of log-normal length. 70 % of the tokens follow from the previous one by a table; others are random."""
    random = np.random.default_rng(SEED)
    table = random.permutation(args.vocab)
    share = 1 / np.arange(1, args.vocab + 1)
    cumulative = np.cumsum(share / share.sum())
    wanted = (args.steps + 1) * args.packs * args.accumulation * args.length
    documents, tokens = [], 0
    while tokens < wanted:
        length = int(np.clip(random.lognormal(math.log(args.length / 6), 0.8), 8, args.length))
        drawn = np.minimum(np.searchsorted(cumulative, random.random(length)), args.vocab - 1)
        follows = random.random(length) < 0.7
        ids = drawn.copy()
        for i in range(1, length):
            if follows[i]:
                ids[i] = table[ids[i - 1]]
        documents.append(ids.tolist())
        tokens += length
    with open(path, "w") as file:
        for ids in documents:
            labels = [-100] * (len(ids) // 3) + ids[len(ids) // 3:]
            file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    return documents


def philox_bits(seed, stream, index):
    """64 random bits: Philox4x32-10 as in engine/device/philox.h."""
    word = 0xFFFFFFFF
    c = [index & word, index >> 32, stream & word, stream >> 32]
    k = [seed & word, seed >> 32]
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [high >> 32 ^ c[1] ^ k[0], high & word, low >> 32 ^ c[3] ^ k[1], low & word]
        k = [(k[0] + 0x9E3779B9) & word, (k[1] + 0xBB67AE85) & word]
    return c[0] << 32 | c[1]


def shuffled(values, stream):
    values = list(values)
    for i in range(len(values), 1, -1):
        j = philox_bits(SEED, stream, i) * i >> 64
        values[i - 1], values[j] = values[j], values[i - 1]
    return values


def packs_of_first_epoch(documents, length):
    """Lists of document indices, one per pack."""
    tag = 0x7061636B << 32
    packs, left = [], -1
    for document in shuffled(range(len(documents)), tag):
        if len(documents[document]) > left:
            packs.append([])
            left = length
        packs[-1].append(document)
        left -= len(documents[document])
    return shuffled(packs, tag + 1)


def train(work, args):
    config = {
        "model_name_or_path": str(work / "model"), "datasets": [{"path": str(work / "rows.jsonl"), "type": "tokens"}],
        "device": args.device, "output_dir": str(work / "run"), "overwrite_output_dir": True, "seed": SEED,
        "max_length": args.length, "packing_length": args.length, "packing_strategy": "sequential",
        "per_device_train_batch_size": args.packs, "gradient_accumulation_steps": args.accumulation,
        "max_steps": args.steps, "learning_rate": RECIPE["learning_rate"], "lr_scheduler_type": "cosine",
        "warmup_steps": warmup_steps(args), "adam_beta1": RECIPE["betas"][0], "adam_beta2": RECIPE["betas"][1],
        "adam_epsilon": RECIPE["eps"], "weight_decay": RECIPE["weight_decay"], "max_grad_norm": RECIPE["max_grad_norm"],
        "logging_steps": 1, "report_to": ["jsonl"], "save_strategy": "no",
    }
    (work / "config.yaml").write_text(json.dumps(config, indent=2) + "\n")  # JSON is valid YAML
    command = [args.train, str(work / "config.yaml")]
    with open(work / "train.log", "w") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{(work / 'train.log').read_text()[-2000:]}")
    lines = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, args.steps + 1)), "expected one line of metrics per step"
    for line in lines:
        expected = learning_rate(args, line["step"] - 1)
        assert math.isclose(line["learning_rate"], expected, rel_tol=1e-9, abs_tol=1e-15), "learning rates differ"
    return [line["loss"] for line in lines]


def warmup_steps(args):
    return args.steps // 10


def learning_rate(args, step):
    warmup = warmup_steps(args)
    if step < warmup:
        return RECIPE["learning_rate"] * step / warmup
    return RECIPE["learning_rate"] * (1 + math.cos(math.pi * (step - warmup) / (args.steps - warmup))) / 2


def micro_batch(documents, pack, device):
    """Tensors of a pack: ids, positions, visibility [query, key], and the target of each position or -100."""
    def tensor(values):
        return torch.tensor(values, device=device)

    ids = tensor([i for d in pack for i in documents[d]])
    position = tensor([i for d in pack for i in range(len(documents[d]))])
    document = tensor([n for n, d in enumerate(pack) for _ in documents[d]])
    row = torch.arange(len(ids), device=device)
    seen = (document[:, None] == document[None]) & (row[:, None] >= row[None])
    labels = tensor([i if at >= len(documents[d]) // 3 and at > 0 else -100
                     for d in pack for at, i in enumerate(documents[d])])
    targets = torch.cat((labels[1:], labels.new_tensor([-100])))
    return ids[None], position[None], seen[None, None], targets


def torch_curve(work, steps, kind, device):
    """Losses of the steps; a step is a list of micro-batches."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        work / "model", dtype=torch.float32, attn_implementation="sdpa").to(device)
    master = list(model.parameters())
    if kind == "bfloat16":
        master = [p.detach().clone().requires_grad_() for p in master]
        model = model.bfloat16()
    groups = [{"params": [p for p in master if p.ndim > 1], "weight_decay": RECIPE["weight_decay"]},
              {"params": [p for p in master if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RECIPE["learning_rate"], RECIPE["betas"], RECIPE["eps"])
    losses = []
    for rate, packs in steps:
        learned = sum(int((targets >= 0).sum()) for *_, targets in packs)
        total = 0.0
        for ids, positions, seen, targets in packs:
            mask = torch.zeros(seen.shape, device=device).masked_fill(~seen, torch.finfo(torch.float32).min)
            mask = mask.bfloat16().masked_fill(~seen, torch.finfo(torch.bfloat16).min) if kind != "float32" else mask
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=kind == "autocast"):
                logits = model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).logits[0]
            nll = torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum")
            (nll / learned).backward()
            total += nll.detach().double()
            if kind == "bfloat16":
                for wide, narrow in zip(master, model.parameters()):
                    wide.grad = narrow.grad.float() if wide.grad is None else wide.grad + narrow.grad.float()
                    narrow.grad = None
        losses.append(total / learned)
        torch.nn.utils.clip_grad_norm_(master, RECIPE["max_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        if kind == "bfloat16":
            with torch.no_grad():
                for wide, narrow in zip(master, model.parameters()):
                    narrow.copy_(wide)
    return [float(loss) for loss in losses]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for model, rows and run; its content is deleted first")
    parser.add_argument("--train", default=str(ROOT / "build/bin/train"), help="path of the train program")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--packs", type=int, default=2, help="packs per micro-step")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--length", type=int, default=1024, help="tokens per pack")
    parser.add_argument("--hidden", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--json", help="write curves and gaps to this file")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)

    write_model(args.work / "model", args)
    documents = write_rows(args.work / "rows.jsonl", args)
    packs = packs_of_first_epoch(documents, args.length)
    per_step = args.packs * args.accumulation
    assert len(packs) >= args.steps * per_step
    curves, seconds = {}, {}

    def timed(name, curve):
        start = time.time()
        curves[name] = curve()
        seconds[name] = time.time() - start
        print(f"{name:<10} loss {curves[name][0]:.4f} -> {curves[name][-1]:.4f}, {seconds[name]:.0f} s", flush=True)

    timed("colonnade", lambda: train(args.work, args))
    for kind in ("float32", "autocast", "bfloat16"):
        steps = ((learning_rate(args, step), [micro_batch(documents, pack, args.device)
                                              for pack in packs[step * per_step:(step + 1) * per_step]])
                 for step in range(args.steps))
        timed(kind, lambda: torch_curve(args.work, steps, kind, args.device))

    gaps = {}
    print(f"\n{'loss of':<12}{'against':<12}{'mean gap':>12}{'largest':>12}  at step")
    for one, other in (("colonnade", "float32"), ("colonnade", "autocast"), ("autocast", "float32"),
                       ("bfloat16", "float32")):
        gap = np.abs(np.array(curves[one]) - np.array(curves[other]))
        gaps[f"{one} - {other}"] = {"mean": float(gap.mean()), "largest": float(gap.max()), "step": int(gap.argmax()) + 1}
        print(f"{one:<12}{other:<12}{gap.mean():>12.2e}{gap.max():>12.2e}  {gap.argmax() + 1}")
    if args.json:
        report = {"device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu", "steps": args.steps,
                  "gaps": gaps, "curves": curves}
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
