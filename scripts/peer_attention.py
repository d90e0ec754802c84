#!/usr/bin/env python3
"""PyTorch's side of bench_attention: FlexAttention on FlashMask's mask families, and cuDNN for full and causal masks.

    peer_attention.py --length 32768 --columns-out masks --columns-only        writes the masks for
    bench_attention --columns-file masks/causal-32768.h5,... --heads 32 --head-dim 128 --without-full --json ours.json
    peer_attention.py --length 32768 --heads 32 --head-dim 128 --json peer.json

Every mask is made once, as column vectors (arXiv 2410.01359): column j is hidden from rows [lts, lte) and [uts, ute),
and from earlier rows if the mask is causal. --columns-out writes them in the format of bench_attention, one mask for
each row of the batch. FlexAttention is compiled and gets the same vectors as a mask function; its block mask is built
in advance and not timed.

Times are medians of CUDA events around single calls. Backward is the time of forward and backward minus that of
forward. TFLOP/s count visible pairs: 4 head_dim per pair and head for forward, 2.5 times that for backward.
"""

import argparse
import json
import os
import statistics

import numpy as np

MASKS = ("full", "causal", "sliding_window", "causal_document", "document", "share_question", "global_sliding_window",
         "causal_blockwise", "prefix_lm_document", "random_eviction")


class Mask:
    """Column vectors of n columns; a vector that is not given hides nothing."""

    def __init__(self, n, causal, lts=None, lte=None, uts=None, ute=None):
        self.n, self.causal = n, causal
        self.given = {name: np.ascontiguousarray(v, np.int32)
                      for name, v in (("lts", lts), ("lte", lte), ("uts", uts), ("ute", ute)) if v is not None}
        defaults = {"lts": n, "lte": n, "uts": 0, "ute": 0}
        self.lts, self.lte, self.uts, self.ute = (
            self.given.get(name, np.full(n, value, np.int32)) for name, value in defaults.items())

    def visible_pairs(self):
        """The hidden ranges of the families below are disjoint."""
        first = np.arange(self.n, dtype=np.int64) if self.causal else np.zeros(self.n, np.int64)
        hidden = sum(np.maximum(end - np.maximum(begin, first), 0) for begin, end in
                     ((self.lts, self.lte), (self.uts, self.ute)))
        return int((self.n - first - hidden).sum())

    def write(self, path, batch):
        import h5py
        with h5py.File(path, "w") as file:
            file.attrs["causal"] = int(self.causal)
            for name, vector in (self.given or {"lts": self.lts}).items():
                file[name] = np.broadcast_to(vector, (batch, 1, self.n))


def make_mask(name, n, seed):
    random = np.random.default_rng([seed, n])
    column = np.arange(n)
    if name in ("full", "causal"):
        return Mask(n, name == "causal")
    if name == "sliding_window":
        return Mask(n, True, lts=np.minimum(column + (1024 if n <= 8192 else 4096), n))
    if name == "global_sliding_window":  # all rows see the first columns, n / 16 rows see each other one
        return Mask(n, True, lts=np.where(column < n // 64, n, np.minimum(column + n // 16, n)))
    if name == "random_eviction":  # every column is hidden from some later row on
        return Mask(n, True, lts=np.minimum(column + 1 + random.integers(0, n, n), n))

    documents = 5 if n <= 8192 else 12 if n <= 32768 else 24
    cuts = np.sort(random.integers(0, n - 128 * documents + 1, documents - 1))
    ends = np.append(cuts, n - 128 * documents) + 128 * np.arange(1, documents + 1)
    begins = np.append(0, ends[:-1])
    lengths = ends - begins
    begin, end = np.repeat(begins, lengths), np.repeat(ends, lengths)
    if name == "causal_document":
        return Mask(n, True, lts=end)
    if name == "document":
        return Mask(n, False, lts=end, ute=begin)
    if name == "share_question":  # 2/5 of a document is the question; 2 to 5 answers see it, not each other
        lts = end.copy()
        for b, e in zip(begins, ends):
            answers = np.linspace(b + (e - b) * 2 // 5, e, random.integers(2, 6) + 1).astype(int)
            for first, last in zip(answers, answers[1:]):
                lts[first:last] = last
        return Mask(n, True, lts=lts)
    if name == "causal_blockwise":  # examples see only themselves, the last block sees everything
        last = begins[-1]
        return Mask(n, True, lts=end, lte=np.where(column < last, last, n))
    if name == "prefix_lm_document":  # the first third of a document is bidirectional
        return Mask(n, False, lts=end, ute=np.where(column < begin + (end - begin) // 3, begin, column))
    raise ValueError(name)


def flex_function(mask, device):
    import torch
    lts, lte, uts, ute = (torch.as_tensor(v, device=device) for v in (mask.lts, mask.lte, mask.uts, mask.ute))
    has_lower, has_lte, has_upper = "lts" in mask.given, "lte" in mask.given, "ute" in mask.given
    if not mask.causal and not has_lower:
        return None

    def visible(batch, head, row, column):
        seen = row >= column if mask.causal else None
        if has_lower:
            below = (row < lts[column]) | (row >= lte[column]) if has_lte else row < lts[column]
            seen = below if seen is None else seen & below
        return seen & (row >= ute[column]) if has_upper else seen

    return visible


class Timer:
    def __init__(self, repeat):
        self.repeat = repeat

    def __call__(self, work):
        import torch
        for _ in range(2):
            work()
        times = []
        for _ in range(self.repeat):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        return statistics.median(times)


def measure(args):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    timer, results = Timer(args.repeat), []
    torch.manual_seed(0)
    for n in args.length:
        batch = max(1, args.tokens // n)
        shape = {"q": (batch, args.heads, n, args.head_dim), "kv": (batch, args.kv_heads, n, args.head_dim)}
        q, k, v = (torch.randn(shape[s], device="cuda", dtype=torch.bfloat16, requires_grad=True) for s in ("q", "kv", "kv"))
        dout = torch.randn_like(q)
        gqa = args.kv_heads != args.heads
        for name in args.mask:
            mask = make_mask(name, n, args.seed)
            flops = 4 * batch * args.heads * args.head_dim * mask.visible_pairs()

            def record(peer, attention):
                def both():
                    torch.autograd.grad(attention(), (q, k, v), dout)
                forward = timer(attention)
                backward = timer(both) - forward
                results.append({"peer": peer, "mask": name, "columns": n, "forward_ms": forward, "backward_ms": backward,
                                "forward_tflops": 1e-9 * flops / forward, "backward_tflops": 2.5e-9 * flops / backward})
                print("{peer:<6} {mask:<22} {columns:>7} {forward_ms:>9.3f} {backward_ms:>9.3f} ms {forward_tflops:>7.0f} "
                      "{backward_tflops:>6.0f} TFLOP/s".format(**results[-1]), flush=True)

            torch._dynamo.reset()
            flex = torch.compile(flex_attention, dynamic=False)
            function = flex_function(mask, "cuda")
            block_mask = function and create_block_mask(function, None, None, n, n, device="cuda", _compile=True)
            record("flex", lambda: flex(q, k, v, block_mask=block_mask, enable_gqa=gqa))
            if name in ("full", "causal"):
                def cudnn():
                    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=name == "causal",
                                                                                enable_gqa=gqa)
                record("cudnn", cudnn)
            del block_mask
    return {"trainer": f"PyTorch {torch.__version__}", "device": torch.cuda.get_device_name(), "heads": args.heads,
            "kv_heads": args.kv_heads, "head_dim": args.head_dim, "results": results}


def main():
    names = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mask", type=names, default=list(MASKS), help="comma-separated names from " + ", ".join(MASKS))
    parser.add_argument("--length", type=lambda text: [int(n) for n in text.split(",")], default=[32768])
    parser.add_argument("--tokens", type=int, default=131072, help="tokens of all rows together")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--columns-out", help="write the masks to this folder, as MASK-LENGTH.h5")
    parser.add_argument("--columns-only", action="store_true", help="write the masks and exit")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    args.kv_heads = args.kv_heads or args.heads
    for name in args.mask:
        if name not in MASKS:
            parser.error(f"--mask {name}: expected names from {', '.join(MASKS)}")
    if args.columns_out:
        os.makedirs(args.columns_out, exist_ok=True)
        for n in args.length:
            for name in args.mask:
                make_mask(name, n, args.seed).write(f"{args.columns_out}/{name}-{n}.h5", max(1, args.tokens // n))
    if args.columns_only:
        return
    report = measure(args)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
