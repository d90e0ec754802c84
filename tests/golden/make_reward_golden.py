#!/usr/bin/env python3
"""Golden reward models from transformers, which tests/train/objectives/reward_model_test.cpp loads and scores.

    make_reward_golden.py           rewrites tests/golden/reward/<family>/: config.json, model.safetensors, golden.json
    make_reward_golden.py --check FOLDER
                                    checks that transformers loads and scores an exported folder

golden.json: rows of token ids and the score that transformers' ...ForSequenceClassification gives each of them, with
float64 weights (its norms are float32). All rows are in one padded batch, so that pad_token_id decides where each row
ends. Committed values: torch 2.15, transformers 5.24.

--check loads FOLDER in float32, rejects missing and unexpected tensors, and scores rows alone and padded together. The
scores differ if rows end with the pad token.
"""

import argparse
import json
import pathlib
import shutil

import torch
import transformers

SHAPE = dict(vocab_size=37, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, num_labels=1, pad_token_id=3,
             bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama": transformers.LlamaConfig(**SHAPE),
    "mistral": transformers.MistralConfig(**SHAPE, head_dim=4, sliding_window=5),
    "qwen2": transformers.Qwen2Config(**SHAPE),
    "qwen3": transformers.Qwen3Config(**SHAPE, head_dim=4),
}


def rows_of(vocabulary, pad):
    random = torch.Generator().manual_seed(5)
    rows = []
    for length in [1, 4, 9, 17]:
        ids = torch.randint(4, vocabulary, (length,), generator=random).tolist()
        ids[-1] = 2  # </s>
        rows.append([i if i != pad else 5 for i in ids])
    return rows


def scores_of(model, rows, together):
    pad = model.config.pad_token_id
    with torch.no_grad():
        if not together:
            return [model(input_ids=torch.tensor([row])).logits[0, 0].item() for row in rows]
        width = max(map(len, rows)) + 2
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()


def check(folder):
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    unused = {kind: sorted(map(str, keys)) for kind, keys in loading.items() if keys}
    if unused:
        raise SystemExit(f"{folder}: transformers does not load every tensor: {unused}")
    model.eval()
    rows = rows_of(model.config.vocab_size, model.config.pad_token_id)
    alone, together = scores_of(model, rows, False), scores_of(model, rows, True)
    difference = max(abs(a - b) for a, b in zip(alone, together))
    print(f"{type(model).__name__}: {model.config.num_labels} label, pad {model.config.pad_token_id}, scores "
          f"{[round(s, 4) for s in alone]}, padded together within {difference:.1e}")
    raise SystemExit(0 if difference < 1e-4 and model.config.num_labels == 1 else 1)


def make():
    for name, config in MODELS.items():
        torch.manual_seed(len(name))
        model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                mean = 1.0 if "norm" in parameter_name else 0.0
                parameter.copy_(mean + 0.3 * torch.randn_like(parameter))
        folder = pathlib.Path(__file__).parent / "reward" / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        rows = rows_of(SHAPE["vocab_size"], SHAPE["pad_token_id"])
        # With a sliding window, transformers gives NaN for padding that sees nothing.
        scores = scores_of(model.double().eval(), rows, together=not getattr(config, "sliding_window", None))
        (folder / "golden.json").write_text(json.dumps({"rows": rows, "scores": scores}) + "\n")
        print(folder, scores)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--check", metavar="FOLDER")
args = parser.parse_args()
check(args.check) if args.check else make()
