#!/usr/bin/env python3
"""Checks that transformers renders chats with an exported folder as Colonnade trained on them.

    check_chat_templates.py BIN        BIN: folder of Colonnade's programs; needs transformers, h5py, safetensors

For each built-in chat template: trains a tiny model for a step on a few chats, exports it, and compares the ids that
apply_chat_template gives with those in Colonnade's token store, and with the prompts of `generate`. Exit code 1 if any
differ.
"""

import glob
import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import transformers
from safetensors.numpy import load_file

TEMPLATES = ["plain", "chatml", "llama2", "llama3", "mistral", "zephyr", "gemma"]
MARKERS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
           "<end_of_turn>", "<bos>", "<|begin_of_text|>"]
CHATS = [[("user", "What does cat mean?"), ("assistant", "A small animal.")],
         [("system", "Be brief."), ("user", "Two and 23?"), ("assistant", "25."), ("user", "Why?"), ("assistant", "It adds up.")],
         [("system", "  Répondez en français. \n"), ("user", "\n Été 漢字?\t"), ("assistant", " Oui ,  deux\n\nlignes. ")],
         [("user", "x"), ("assistant", "y"), ("user", "<tag> & [INST]"), ("assistant", "end\n")]]
CONFIG = """
model: {{hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1}}
tokenizer_name_or_path: {tokenizer}
chat_template: {template}
datasets: [{{path: {data}}}]
max_length: 2048
max_steps: 1
report_to: none
output_dir: {out}
"""


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def messages_of(chat):
    return [{"role": role, "content": content} for role, content in chat]


def stored_chats(folder):
    with h5py.File(glob.glob(f"{folder}/prepared/train-*.h5")[0]) as store:
        tokens, begins = store["tokens"][:].tolist(), store["sample_begins"][:].tolist()
    return [tokens[a:b] for a, b in zip(begins, begins[1:])]


def prompt_ids(programs, folder, chat):
    system = [content for role, content in chat if role == "system"]
    user = next(content for role, content in chat if role == "user")
    logits = folder / "logits.safetensors"
    logits.unlink(missing_ok=True)
    run(programs / "generate", folder, "-p", user, *(["--system", system[0]] if system else []), "--logits-out", logits)
    return messages_of([("system", s) for s in system] + [("user", user)]), load_file(logits)["input_ids"][0].tolist()


def differences(programs, work, template):
    out = work / template
    config = work / f"{template}.yaml"
    config.write_text(CONFIG.format(tokenizer=work / "toy.model", template=template, data=work / "chats.jsonl", out=out))
    run(programs / "train", config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    cases = [(messages_of(chat), ids, False) for chat, ids in zip(CHATS, stored_chats(out), strict=True)]
    cases += [(*prompt_ids(programs, out, chat), True) for chat in CHATS]
    for messages, ours, generation in cases:
        theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=False)
        if ours != theirs:
            yield messages, generation, tokenizer.convert_ids_to_tokens(ours), tokenizer.convert_ids_to_tokens(theirs)


def main():
    programs = pathlib.Path(sys.argv[1]).resolve()
    failed = False
    # Tokenizers with all markers as pieces, without the families' BOS pieces, and without any of the markers.
    for markers in MARKERS, MARKERS[:-2], []:
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            rows = [{"messages": messages_of(chat)} for chat in CHATS]
            (work / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            special = [part for marker in markers for part in ("--special", marker)]
            run(programs / "train_tokenizer", "--text", work / "chats.jsonl", "--output", work / "toy", "--vocab-size", 320,
                *special)
            for template in TEMPLATES:
                found = list(differences(programs, work, template))
                print(f"{len(markers)} markers, {template}: {f'{len(found)} differ' if found else 'equal'}")
                for messages, generation, ours, theirs in found:
                    failed = True
                    print(f"  {messages}{' + generation prompt' if generation else ''}\n    ours   {ours}\n    theirs {theirs}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
