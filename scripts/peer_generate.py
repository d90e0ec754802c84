#!/usr/bin/env python3
"""transformers' side of bench_generate: greedy decoding of a published shape with random weights in bfloat16 on a GPU.

    peer_generate.py --model llama3.2-1b --batch 1,32 --context 512 --tokens 64
    bench_generate   --model llama3.2-1b --batch 1,32 --context 512 --tokens 64 --bandwidth 4300

Two ways: model.generate() as it is, and with cache_implementation="static", which compiles the step. The time of a step
is that of generating `tokens` + 1 tokens minus that of generating one, over `tokens`; the best of three.
"""

import argparse
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from peer_step import MODELS


def make_model(name):
    hidden, ffn, layers, heads, kv_heads, head_dim, vocab, tied, theta, eps, _, _ = MODELS[name]
    config = LlamaConfig(hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=kv_heads, head_dim=head_dim, vocab_size=vocab, tie_word_embeddings=tied,
                         rope_theta=theta, rms_norm_eps=eps, max_position_embeddings=131072, bos_token_id=1,
                         eos_token_id=None, pad_token_id=0)
    torch.manual_seed(1)
    with torch.device("cuda"):
        return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def seconds(model, prompt, tokens, **how):
    torch.cuda.synchronize()
    start = time.perf_counter()
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens,
                         do_sample=False, **how)
    torch.cuda.synchronize()
    assert out.shape[1] == prompt.shape[1] + tokens
    return time.perf_counter() - start


def step(model, prompt, tokens, **how):
    for count in (tokens + 1, tokens + 1, 1):
        seconds(model, prompt, count, **how)
    return min((seconds(model, prompt, tokens + 1, **how) - seconds(model, prompt, 1, **how)) / tokens for _ in range(3))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama3.2-1b", choices=[m for m in MODELS if m.startswith("llama")])
    parser.add_argument("--batch", default="1")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--static", action="store_true", help="also with a static cache, compiled")
    args = parser.parse_args()
    model = make_model(args.model)
    for batch in map(int, args.batch.split(",")):
        prompt = torch.randint(2, model.config.vocab_size, (batch, args.context), device="cuda")
        for name, how in [("dynamic", {})] + [("static", {"cache_implementation": "static"})] * args.static:
            s = step(model, prompt, args.tokens, **how)
            print(f"{args.model} batch {batch} context {args.context} {name} cache: {1e3 * s:.3f} ms a step, "
                  f"{batch / s:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
