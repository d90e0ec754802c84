#!/usr/bin/env python3
"""What transformers and PEFT answer, token by token, to which tests/train/generation compares Colonnade.

    make_decode_golden.py                        writes tests/golden/decode_golden.json
    make_decode_golden.py --model FOLDER OUT     the same for your own Hugging Face folder, with prompts as text;
                                                 COLONNADE_DECODE_GOLDEN=OUT makes decode_golden_test read it, too

It needs torch, transformers, peft (the committed values: torch 2.15, transformers 5.24, peft 0.21). All in float32 on
the CPU.

decode_golden.json: a list of {"model": a folder of tests/golden, "prompt": ids, "greedy": the 64 most likely tokens in a
row, "penalised": the same with repetition_penalty 1.3, "gap": the smallest difference of the two largest logits on the
way}. Prompts with a gap below 1e-4 are left out: there float32 does not decide.
"""

import argparse
import json
import pathlib

import torch
import transformers

GOLDEN = pathlib.Path(__file__).resolve().parent
TOKENS = 64
TEXTS = ["Gravity is", "def fibonacci(n):\n", "The capital of France is", "Größe und 你好"]


def load(folder):
    if not (folder / "adapter_config.json").exists():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    import peft

    base = GOLDEN.parent.parent / json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    return peft.PeftModel.from_pretrained(load(base), folder)


def answer(model, prompt, **settings):
    """The answer and its smallest gap. No token ends it."""
    config = transformers.GenerationConfig(max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, return_dict_in_generate=True, output_scores=True, **settings)
    with torch.no_grad():
        out = model.generate(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), generation_config=config)
    top = torch.stack(out.scores)[:, 0].topk(2).values
    return out.sequences[0, len(prompt):].tolist(), (top[:, 0] - top[:, 1]).min().item()


def cases(model, name, prompts):
    model.eval()
    model.generation_config = transformers.GenerationConfig()
    for prompt in prompts:
        greedy, gap = answer(model, prompt)
        penalised, other = answer(model, prompt, repetition_penalty=1.3)
        assert len(greedy) == len(penalised) == TOKENS
        if min(gap, other) > 1e-4:
            yield {"model": name, "prompt": prompt, "greedy": greedy, "penalised": penalised, "gap": round(min(gap, other), 6)}
        else:
            print(f"{name}: left out a prompt of {len(prompt)} tokens, gap {min(gap, other):.1e}")


def write(path, made):
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in made) + "\n]\n")
    print(f"{path}: {len(made)} cases, smallest gap {min(c['gap'] for c in made)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs=2, metavar=("FOLDER", "OUT"), type=pathlib.Path)
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    if args.model:
        folder, out = args.model
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return write(out, list(cases(load(folder), str(folder.resolve()), [tokenizer(t).input_ids for t in TEXTS])))
    made = []
    for folder in sorted([*(GOLDEN / "models").iterdir(), *(GOLDEN / "lora").iterdir()]):
        model = load(folder)
        random = torch.Generator().manual_seed(len(folder.name))
        vocab = model.config.vocab_size
        prompts = [torch.randint(vocab, (n,), generator=random).tolist() for n in (1, 5, 23, 50)]
        made += cases(model, f"{folder.parent.name}/{folder.name}", prompts)
    write(GOLDEN / "decode_golden.json", made)


if __name__ == "__main__":
    main()
