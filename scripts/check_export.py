#!/usr/bin/env python3
"""Compares the logits of an exported folder between transformers and Colonnade.

    check_export.py FOLDER LOGITS.safetensors

FOLDER is an exported model. LOGITS.safetensors contains input_ids i32 [1, n] and the logits f32 [1, n, vocab] that
Colonnade computes for them. transformers runs the same tokens in float32. Prints the largest difference, absolute and
relative to the root mean square of the logits. Exit code 1 if the relative difference is above 1e-4 or not a number.
"""

import argparse

import torch
import transformers
from safetensors.torch import load_file

LIMIT = 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("logits")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    ours = load_file(args.logits)
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        args.folder, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    unused = {kind: sorted(map(str, keys)) for kind, keys in loading.items() if keys}
    if unused:
        raise SystemExit(f"{args.folder}: transformers does not load every tensor: {unused}")
    with torch.no_grad():
        theirs = model.eval()(input_ids=ours["input_ids"].long()).logits
    if theirs.shape != ours["logits"].shape:
        raise SystemExit(f"logits are {list(ours['logits'].shape)}, transformers gives {list(theirs.shape)}")
    difference = (ours["logits"].double() - theirs.double()).abs().max().item()
    relative = difference / theirs.double().pow(2).mean().sqrt().item()
    print(f"{theirs.shape[1]} tokens: largest difference {difference:.3g}, {relative:.3g} of the logits' rms, limit {LIMIT:g}")
    raise SystemExit(0 if relative <= LIMIT else 1)


if __name__ == "__main__":
    main()
