#!/usr/bin/env python3
"""Golden values of LoRA from PEFT, to which tests/train/folders/adapter_folder_test.cpp compares Colonnade.

    make_lora_golden.py       rewrites tests/golden/lora/<name>/ for every adapter below

It needs the packages of make_golden.py and peft (the committed values: torch 2.15, transformers 5.24, peft 0.21). The
base models and their batches are those of tests/golden/models. Same seed, versions and kind of CPU: same bytes.

A folder contains adapter_config.json and adapter_model.safetensors, as save_pretrained writes them, and golden.safetensors,
computed in float64 from the weights of the files:
    logits        f64 [packs * length, vocab]
    loss          f64 [1]
    grad.<name>   f64   d loss / d A and d B, and the head if it is trained, by the names of adapter_model.safetensors

    make_lora_golden.py --check BASE FOLDER LOGITS     compares in the other direction: LOGITS is the output of
                              `generate FOLDER --base BASE --logits-out LOGITS`
"""

import argparse
import json
import pathlib
import shutil
import zlib

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from make_golden import attention_mask, computing_in, logits_and_loss

GOLDEN = pathlib.Path(__file__).parent
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "llama_all": ("llama_tied", dict(r=4, lora_alpha=6, target_modules=ALL)),
    "qwen3_q_v_down_rslora": ("qwen3", dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"])),
    "llama_o_head": ("llama_yarn", dict(r=2, lora_alpha=2, target_modules=["o_proj"], modules_to_save=["lm_head"])),
}


def write_golden(name, base, settings):
    folder, base_folder = GOLDEN / "lora" / name, GOLDEN / "models" / base
    shutil.rmtree(folder, ignore_errors=True)
    stored = load_file(base_folder / "golden.safetensors")
    batch = {k: stored[k].long() for k in ("input_ids", "document_ends", "positions", "rows", "targets")}
    batch["weights"] = stored["weights"]
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)
    single = transformers.AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    with computing_in(torch.float64):
        model = transformers.AutoModelForCausalLM.from_config(single.config, dtype=torch.float64, attn_implementation="eager")
        model.load_state_dict(single.state_dict())
        model = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        with torch.no_grad():
            for key, p in model.named_parameters():
                if p.requires_grad:  # exact in float32
                    p.copy_((torch.randn(p.shape, generator=random) / p.shape[1] ** 0.5).float())
        mask = attention_mask(model.config, batch, torch.float64)
        logits, loss = logits_and_loss(model, batch, mask)
        loss.backward()
        golden = {"logits": logits.detach(), "loss": loss.detach().view(1)}
        golden |= {"grad." + key.replace(".modules_to_save", "").replace(".default", ""): p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.to(torch.float32)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = f"tests/golden/models/{base}"
    written["target_modules"] = sorted(written["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors", metadata={"format": "pt"})
    print(f"{folder.name}: loss {loss.item():.6f}, {len(golden) - 2} gradients")


def check(base, folder, logits):
    """Compares our logits with PEFT's, with the adapters separate and merged."""
    found = load_file(logits)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        expected = model(found["input_ids"].long()).logits
        merged = model.merge_and_unload()(found["input_ids"].long()).logits
        with_base = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(found["input_ids"].long()).logits
    scale = expected.abs().max()
    for name, other in (("apart", expected), ("merged", merged)):
        error = ((found["logits"] - other).abs().max() / scale).item()
        print(f"PEFT, {name}: largest difference {error:.1e} of the largest logit")
        assert error < 1e-5
    assert ((found["logits"] - with_base).abs().max() / scale).item() > 1e-3, "the adapters change nothing"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs=3, metavar=("BASE", "FOLDER", "LOGITS"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    if args.check:
        return check(*args.check)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for name, (base, settings) in ADAPTERS.items():
        write_golden(name, base, settings)


if __name__ == "__main__":
    main()
