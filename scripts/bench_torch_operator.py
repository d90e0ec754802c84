#!/usr/bin/env python3
"""FlashMask as a PyTorch operator beside FlexAttention and PyTorch's own attention, through the same calls, in one run.

    COLONNADE_LIBRARY=build/lib/libcolonnade_flashmask.so.1 scripts/bench_torch_operator.py --json figures.json

1. Host time of a call on a problem so small that the GPU waits for the host: what the operator itself costs.
2. Times of forward, and of forward and backward, by CUDA events, medians; how far results are from FlexAttention's.

FlexAttention is compiled; its block mask and FlashMask's plan are made in advance and timed apart. SDPA gets the mask as a
matrix up to --dense-up-to tokens, and is_causal for a causal mask. TFLOP/s count visible pairs only: 4 head_dim per pair
and head for forward, 3.5 times that for both. Each line is one process and one GPU; nothing else should use it.
"""

import argparse
import json
import os
import sys
import time

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from peer_attention import MASKS, Timer, flex_function, make_mask

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "attention", "python"))
import colonnade_flashmask as library
from colonnade_flashmask import Mask, flashmask_attention


def random_operands(batch, heads, kv_heads, length, head_dim):
    q, k, v = (torch.randn(batch, n, length, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
               for n in (heads, kv_heads, kv_heads))
    return q, k, v, torch.randn_like(q)


def both_passes(attention, q, k, v, dout):
    return torch.autograd.grad(attention(), (q, k, v), dout)


def host_microseconds(call, calls=300, rounds=15):
    """The least mean of `rounds`: the host's time until it has enqueued a call."""
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - start) / calls)
    torch.cuda.synchronize()
    return best * 1e6


def overhead(results):
    """Host time of calls on 64 tokens, one head."""
    q, k, v, dout = random_operands(1, 1, 1, 64, 64)
    mask = Mask.causal(64, device="cuda")
    flex_mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 64, 64, device="cuda")
    flex = torch.compile(flex_attention, dynamic=False)
    one = library._call_of(q, k, v, mask, None, "bhsd")
    out, lse = one.forward(q, k, v, mask.tensor)
    packed = one.packed_forward(out, lse, q, k, v, mask.tensor)
    settings = (mask.tensor, 1, True, 0.125, False, False)
    borders = torch.tensor([0, 30, 64], device="cuda", dtype=torch.int32)

    def without_gradients(call):
        def run():
            with torch.no_grad():
                call()
        return run
    calls = {
        "empty no_grad block": without_gradients(lambda: None),
        "C call, forward": lambda: library._forward_call(packed),
        "flashmask_attention, no_grad": without_gradients(lambda: flashmask_attention(q, k, v, mask)),
        "flashmask_attention": lambda: flashmask_attention(q, k, v, mask),
        "flashmask_attention, both passes": lambda: both_passes(lambda: flashmask_attention(q, k, v, mask), q, k, v, dout),
        "torch.ops.colonnade.flashmask, no_grad": without_gradients(lambda: library._flashmask(q, k, v, *settings)),
        "torch.ops.colonnade.flashmask": lambda: library._flashmask(q, k, v, *settings),
        "SDPA, no_grad": without_gradients(lambda: scaled_dot_product_attention(q, k, v, is_causal=True)),
        "SDPA": lambda: scaled_dot_product_attention(q, k, v, is_causal=True),
        "SDPA, both passes": lambda: both_passes(
            lambda: scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v, dout),
        "FlexAttention": lambda: flex(q, k, v, block_mask=flex_mask),
        "FlexAttention, both passes": lambda: both_passes(lambda: flex(q, k, v, block_mask=flex_mask), q, k, v, dout),
        "Mask.from_cu_seqlens": lambda: Mask.from_cu_seqlens(borders, length=64),
    }
    for name, call in calls.items():
        try:
            for _ in range(20):
                call()
            results.append({"call": name, "host_us": host_microseconds(call)})
            print(f"{name:<42} {results[-1]['host_us']:8.1f} us", flush=True)
        except RuntimeError as error:
            results.append({"call": name, "failed": str(error).splitlines()[0]})
            print(f"{name:<42} failed: {results[-1]['failed']}", flush=True)


def relative_errors(found, wanted):
    return [((a.float() - b.float()).abs().max() / b.float().abs().max()).item() for a, b in zip(found, wanted)]


def compare(args, results):
    timer = Timer(args.repeat)
    for n in args.length:
        for kv_heads in args.kv_heads:
            batch = max(1, args.tokens // n)
            q, k, v, dout = random_operands(batch, args.heads, kv_heads, n, args.head_dim)
            gqa = kv_heads != args.heads
            for name in args.mask:
                described = make_mask(name, n, args.seed)
                flops = 4 * batch * args.heads * args.head_dim * described.visible_pairs()
                vectors = [torch.as_tensor(described.given[x], device="cuda").expand(batch, -1)
                           if x in described.given else None for x in ("lts", "lte", "uts", "ute")]

                def make():
                    if any(x is not None for x in vectors):
                        return Mask.from_columns(*vectors, causal=described.causal, check=False)
                    return (Mask.causal if described.causal else Mask.full)(n, batch=batch, device="cuda")
                mask = make()
                function = flex_function(described, "cuda")

                def block_mask():
                    return create_block_mask(function, None, None, n, n, device="cuda", _compile=True)
                torch._dynamo.reset()
                flex = torch.compile(flex_attention, dynamic=False)
                blocks = function and block_mask()
                peers = {"colonnade": lambda: flashmask_attention(q, k, v, mask),
                         "flex": lambda: flex(q, k, v, block_mask=blocks, enable_gqa=gqa)}
                makers = {"colonnade": make, "flex": function and block_mask}
                if name in ("full", "causal"):
                    peers["sdpa"] = lambda: scaled_dot_product_attention(q, k, v, is_causal=described.causal,
                                                                         enable_gqa=gqa)
                elif n <= args.dense_up_to:
                    matrix = mask.dense()[:1]
                    group = args.heads // kv_heads  # keys are repeated, as models do: its kernel for masks knows no groups
                    peers["sdpa, matrix"] = lambda: scaled_dot_product_attention(
                        q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), attn_mask=matrix)
                reference = None
                for peer in ("flex", *(p for p in peers if p != "flex")):
                    line = {"peer": peer, "mask": name, "columns": n, "batch": batch, "kv_heads": kv_heads}
                    try:
                        attention = peers[peer]
                        with torch.no_grad():
                            line["forward_ms"] = timer(attention)
                        line["both_ms"] = timer(lambda: both_passes(attention, q, k, v, dout))
                        found = [attention(), *both_passes(attention, q, k, v, dout)]
                        reference = reference or found
                        line["from_flex"] = relative_errors(found, reference)
                        del found
                        if makers.get(peer):
                            line["mask_ms"] = timer(makers[peer])
                    except RuntimeError as error:  # such as a lack of memory
                        line["failed"] = str(error).splitlines()[0]
                        torch.cuda.empty_cache()
                    results.append(line)
                    show(line, flops)
                del blocks, peers, reference


def show(line, flops):
    text = "{peer:<13} {mask:<20} {columns:>6} x {batch:<3} kv {kv_heads:<3}".format(**line)
    if "failed" in line:
        print(text, "failed:", line["failed"], flush=True)
        return
    line["forward_tflops"], line["both_tflops"] = 1e-9 * flops / line["forward_ms"], 3.5e-9 * flops / line["both_ms"]
    mask = f", mask {line['mask_ms']:.3f} ms" if "mask_ms" in line else ""
    text += " forward {forward_ms:8.3f} ms {forward_tflops:4.0f} TFLOP/s, both {both_ms:8.3f} ms {both_tflops:4.0f} TFLOP/s"
    print(text.format(**line) + mask + ", from flex " + " ".join(f"{e:.1e}" for e in line["from_flex"]), flush=True)


def main():
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mask", type=lambda text: text.split(","), default=["causal", "causal_document", "share_question"],
                        help="comma-separated names from " + ", ".join(MASKS))
    parser.add_argument("--length", type=numbers, default=[8192, 32768])
    parser.add_argument("--tokens", type=int, default=32768, help="tokens of all rows together")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=numbers, default=[8, 32])
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--dense-up-to", type=int, default=8192, help="longest row for which SDPA gets a matrix")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--overhead-only", action="store_true")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    for name in args.mask:
        if name not in MASKS:
            parser.error(f"--mask {name}: expected names from {', '.join(MASKS)}")
    if not torch.cuda.is_available():
        sys.exit("bench_torch_operator.py: PyTorch finds no CUDA device")
    torch.manual_seed(0)
    report = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "heads": args.heads,
              "head_dim": args.head_dim, "overhead": [], "results": []}
    print(f"PyTorch {report['torch']}, {report['device']}, {args.heads} heads of {args.head_dim}")
    overhead(report["overhead"])
    if not args.overhead_only:
        compare(args, report["results"])
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
