#!/usr/bin/env python3
"""PyTorch's side of bench_step: one optimizer step of a decoder on the same packed rows, done as well as PyTorch can.

    peer_step.py --model llama3.2-1b --workload chat --length 16384 --json peer.json
    peer_step.py --model llama3.2-1b --workload chat --length 16384 --lengths-out rows.txt --rows-only
    bench_step   --model llama3.2-1b --lengths rows.txt --warmup 3 --steps 6

The whole model is compiled with torch.compile (--compile blocks: each block). FlexAttention skips blocks that the
document mask hides. AdamW is fused, gradients are clipped, every position predicts a token over the whole vocabulary,
and nothing is recomputed. --weights float32 keeps weights and moments in float32 and computes in bfloat16 under
autocast; bfloat16 keeps all of them in bfloat16.

Steps are timed as in bench_step: by events on the GPU's stream, without waiting on the host between steps
(--synchronize: host clock around each step, with a wait before and after). The result is the median of --steps after
--warmup steps. FLOPs are counted as in train/bench/step_flops.h. Peak memory is the maximum of PyTorch's allocator,
including model and optimizer.

Workloads, drawn by numpy from --seed, row after row:
    chat    documents of log-normal length (median 400, sigma 1, between 16 and 8192 tokens) until the row is full
    long    documents of uniform length between 1024 and 16384
    fixed   one document per row
"""

import argparse
import json
import math
import statistics
import time

import numpy as np

# hidden, ffn, layers, heads, kv heads, head dim, vocabulary, tied head, rotary base, norm epsilon, q/k/v bias, q/k norm
MODELS = {
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 64, 151936, True, 1e6, 1e-6, True, False),
    "qwen2.5-1.5b": (1536, 8960, 28, 12, 2, 128, 151936, True, 1e6, 1e-6, True, False),
    "qwen2.5-3b": (2048, 11008, 36, 16, 2, 128, 151936, True, 1e6, 1e-6, True, False),
    "qwen2.5-7b": (3584, 18944, 28, 28, 4, 128, 152064, False, 1e6, 1e-6, True, False),
    "llama3.2-1b": (2048, 8192, 16, 32, 8, 64, 128256, True, 5e5, 1e-5, False, False),
    "llama3.2-3b": (3072, 8192, 28, 24, 8, 128, 128256, True, 5e5, 1e-5, False, False),
    "llama3.1-8b": (4096, 14336, 32, 32, 8, 128, 128256, False, 5e5, 1e-5, False, False),
    "llama2-7b": (4096, 11008, 32, 32, 32, 128, 32000, False, 1e4, 1e-5, False, False),
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, 151936, True, 1e6, 1e-6, False, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128, 151936, True, 1e6, 1e-6, False, True),
    "qwen3-4b": (2560, 9728, 36, 32, 8, 128, 151936, True, 1e6, 1e-6, False, True),
    "qwen3-8b": (4096, 12288, 36, 32, 8, 128, 151936, False, 1e6, 1e-6, False, True),
}


class Shape:
    def __init__(self, args):
        if args.model:
            numbers = MODELS[args.model]
        else:
            numbers = (*map(int, args.shape.split(",")), True, 1e4, 1e-6, False, False)
        (self.hidden, self.ffn, self.layers, self.heads, self.kv_heads, self.head_dim, self.vocab, self.tied,
         self.rope_theta, self.eps, self.qkv_bias, self.qk_norm) = numbers
        self.query_width = self.heads * self.head_dim
        self.qkv_width = (self.heads + 2 * self.kv_heads) * self.head_dim

    def flops(self, tokens, pairs):
        """FLOPs of a step in which every token is a target. `pairs`: visible (query, key) pairs of a layer."""
        block = self.hidden * (self.qkv_width + self.query_width + 3 * self.ffn)
        return 6 * (self.layers * block + self.hidden * self.vocab) * tokens + 12 * self.layers * self.query_width * pairs


def draw_rows(workload, length, count, seed):
    """`count` lists of document lengths; each list sums to `length`."""
    random = np.random.default_rng(seed)

    def document():
        if workload == "chat":
            return int(np.clip(random.lognormal(math.log(400), 1.0), 16, 8192))
        return int(random.integers(1024, 16384)) if workload == "long" else length

    rows = []
    for _ in range(count):
        row, left = [], length
        while left > 0:
            row.append(min(document(), left))
            left -= row[-1]
        rows.append(row)
    return rows


def dense_bf16_peak(device):
    """FLOP/s according to the data sheet; 0 if unknown."""
    if any(part in device for part in ("MIG", "NVL")) or ("H100" in device and "PCIe" in device):
        return 0.0
    return 989.5e12 if "H100" in device or "H200" in device else 312e12 if "A100" in device else 0.0


def make_model(shape, attention):
    """The decoder: tokens [packs, length] -> mean loss. Inputs of `attention` are [packs, heads, length, head_dim]."""
    import torch
    from torch import nn
    from torch.nn import functional

    def rotate(x, cos, sin):
        low, high = x.chunk(2, dim=-1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).to(x.dtype)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.input_norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
            self.qkv = nn.Linear(shape.hidden, shape.qkv_width, bias=shape.qkv_bias)
            self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps) if shape.qk_norm else nn.Identity()
            self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps) if shape.qk_norm else nn.Identity()
            self.o = nn.Linear(shape.query_width, shape.hidden, bias=False)
            self.mlp_norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
            self.gate_up = nn.Linear(shape.hidden, 2 * shape.ffn, bias=False)
            self.down = nn.Linear(shape.ffn, shape.hidden, bias=False)

        def forward(self, x, cos, sin, mask):
            packs, length, _ = x.shape
            heads = self.qkv(self.input_norm(x)).view(packs, length, -1, shape.head_dim)
            q, k, v = heads.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=2)
            q = rotate(self.q_norm(q).to(v.dtype).transpose(1, 2), cos, sin)
            k = rotate(self.k_norm(k).to(v.dtype).transpose(1, 2), cos, sin)
            seen = attention(q, k, v.transpose(1, 2), mask)
            x = x + self.o(seen.transpose(1, 2).reshape(packs, length, shape.query_width))
            gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
            return x + self.down(functional.silu(gate) * up)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(shape.vocab, shape.hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(shape.layers))
            self.norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
            self.head = nn.Linear(shape.hidden, shape.vocab, bias=False)
            if shape.tied:
                self.head.weight = self.embedding.weight
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, tokens, positions, targets, mask):
            exponents = torch.arange(0, shape.head_dim, 2, device=tokens.device, dtype=torch.float32) / shape.head_dim
            angles = positions[:, None, :, None].float() * shape.rope_theta**-exponents
            cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
            x = self.embedding(tokens)
            for block in self.blocks:
                x = block(x, cos, sin, mask)
            return self.loss(x, targets)

        def loss(self, x, targets):
            logits = self.head(self.norm(x)).float()
            return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Decoder()


class Masks:
    """The mask of each micro-step: one mask function over one buffer, so that it is compiled once."""

    def __init__(self, args, device):
        import torch
        self.args = args
        self.documents = documents = torch.zeros(args.packs, args.length, dtype=torch.int32, device=device)
        self.made = None

        def causal(pack, head, query, key):
            return query >= key

        def causal_document(pack, head, query, key):
            return (query >= key) & (documents[pack, query] == documents[pack, key])

        self.visible = causal if args.workload == "fixed" else causal_document

    def attention(self):
        from torch.nn.attention.flex_attention import flex_attention
        from torch.nn.functional import scaled_dot_product_attention
        if self.args.attention == "sdpa":
            return lambda q, k, v, mask: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return lambda q, k, v, mask: flex_attention(q, k, v, block_mask=mask, enable_gqa=True)

    def make(self, documents):
        """Builds a mask for each batch of documents. With one document per row, the same mask serves all batches."""
        from torch.nn.attention.flex_attention import create_block_mask
        fixed = self.args.workload == "fixed"
        if self.args.attention == "sdpa" or (fixed and self.made is not None):
            return self.made
        self.documents.copy_(documents)
        packs = None if fixed or self.args.packs == 1 else self.args.packs
        self.made = create_block_mask(self.visible, packs, None, self.args.length, self.args.length,
                                      device=self.documents.device, _compile=self.args.compile != "no")
        return self.made


class Steps:
    """Runs optimizer steps over the rows. All tensors are on the device before timing starts."""

    def __init__(self, args, shape, rows):
        import torch
        self.torch, self.args, self.shape = torch, args, shape
        torch.manual_seed(0)
        torch.backends.cuda.matmul.allow_tf32 = True
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self.masks = Masks(args, self.device)
        with self.device:
            self.model = make_model(shape, self.masks.attention())
        if args.weights == "bfloat16":
            self.model = self.model.bfloat16()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01,
                                           fused=True)
        self.run = self.model
        if args.compile == "whole":
            self.run = torch.compile(self.model, dynamic=False)
        elif args.compile == "blocks":
            for block in self.model.blocks:
                block.compile(dynamic=False)
            self.model.loss = torch.compile(self.model.loss, dynamic=False)
        self.rows = rows
        self.losses = []

    def micro_batches(self, step):
        torch, args = self.torch, self.args
        for micro in range(args.accumulation):
            first = (step * args.accumulation + micro) * args.packs
            rows = self.rows[first:first + args.packs]
            documents = np.stack([np.repeat(np.arange(len(row)), row) for row in rows]).astype(np.int32)
            positions = np.stack([np.concatenate([np.arange(n) for n in row]) for row in rows])
            shape = (args.packs, args.length)
            yield tuple(torch.as_tensor(x, device=self.device) for x in (documents, positions)) + tuple(
                torch.randint(0, self.shape.vocab, shape, device=self.device) for _ in range(2))

    def step(self, batches):
        torch, args = self.torch, self.args
        loss_sum = 0
        for documents, positions, tokens, targets in batches:
            mask = self.masks.make(documents)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=args.weights == "float32"):
                loss = self.run(tokens, positions, targets, mask) / args.accumulation
            loss.backward()
            loss_sum = loss_sum + loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss_sum)

    def wait(self):
        if self.cuda:
            self.torch.cuda.synchronize()

    def timed(self, first, count):
        """Durations of `count` steps in seconds."""
        batches = [list(self.micro_batches(step)) for step in range(first, first + count)]
        self.wait()
        if not self.cuda or self.args.synchronize:
            seconds = []
            for step in batches:
                start = time.perf_counter()
                self.step(step)
                self.wait()
                seconds.append(time.perf_counter() - start)
            return seconds
        events = [self.torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for step, event in zip(batches, events[1:]):
            self.step(step)
            event.record()
        self.wait()
        return [1e-3 * before.elapsed_time(after) for before, after in zip(events, events[1:])]


def measure(args, rows):
    shape = Shape(args)
    steps = Steps(args, shape, rows)
    steps.timed(0, args.warmup)
    seconds = steps.timed(args.warmup, args.steps)
    losses = [float(loss) for loss in steps.losses]

    torch = steps.torch
    device = torch.cuda.get_device_name(steps.device) if steps.cuda else "cpu"
    per_step = args.packs * args.accumulation
    tokens = per_step * args.length
    timed_rows = [rows[i * per_step:(i + 1) * per_step] for i in range(args.warmup, args.warmup + args.steps)]
    flops = [shape.flops(tokens, sum(n * (n + 1) // 2 for row in step for n in row)) for step in timed_rows]
    rate = statistics.median(f / s for f, s in zip(flops, seconds))
    report = {
        "trainer": f"PyTorch {torch.__version__}", "model": args.model or "shape", "rows": args.workload,
        "device": device, "weights": args.weights, "attention": args.attention, "compiled": args.compile,
        "parameters": sum(p.numel() for p in steps.model.parameters()), "packs": args.packs,
        "accumulation": args.accumulation, "length": args.length, "steps": args.steps,
        "step_ms": 1e3 * statistics.median(seconds), "step_ms_min": 1e3 * min(seconds),
        "step_ms_max": 1e3 * max(seconds), "tokens_per_second": tokens / statistics.median(seconds),
        "tokens_per_second_overall": tokens * args.steps / sum(seconds), "step_flops": statistics.median(flops),
        "tflops": 1e-12 * rate, "first_loss": losses[args.warmup], "last_loss": losses[-1],
    }
    if steps.cuda:
        report["memory_peak_bytes"] = torch.cuda.max_memory_allocated(steps.device)
        report["memory_reserved_bytes"] = torch.cuda.max_memory_reserved(steps.device)
    if dense_bf16_peak(device) > 0:
        report["mfu"] = rate / dense_bf16_peak(device)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", choices=MODELS)
    what.add_argument("--shape", help="hidden,ffn,layers,heads,kv_heads,head_dim,vocab, as in bench_step")
    parser.add_argument("--workload", choices=("chat", "long", "fixed"), default="chat")
    parser.add_argument("--length", type=int, default=16384, help="tokens per row")
    parser.add_argument("--packs", type=int, default=1, help="rows per micro-step")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-steps per step")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32", help="dtype of weights and moments")
    parser.add_argument("--attention", choices=("flex", "sdpa"), default="flex", help="sdpa: only with --workload fixed")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=20261123, help="seed of the rows")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", choices=("whole", "blocks", "no"), default="whole",
                        help="blocks: compile one block for all layers, and the loss; takes a fraction of the time")
    parser.add_argument("--synchronize", action="store_true", help="wait for the GPU around each step")
    parser.add_argument("--lengths-out", help="write the rows for bench_step --lengths")
    parser.add_argument("--rows-only", action="store_true", help="write the rows and exit")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    if args.attention == "sdpa" and args.workload != "fixed":
        parser.error("--attention sdpa has no document mask: it needs --workload fixed")
    if not args.rows_only and not (args.model or args.shape):
        parser.error("--model or --shape is required")

    count = (args.warmup + args.steps) * args.packs * args.accumulation
    rows = draw_rows(args.workload, args.length, count, args.seed)
    if args.lengths_out:
        with open(args.lengths_out, "w") as file:
            file.writelines(" ".join(map(str, row)) + "\n" for row in rows)
    if args.rows_only:
        return
    report = measure(args, rows)
    text = json.dumps(report, indent=2)
    print(text)
    if args.json:
        with open(args.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
