#!/usr/bin/env python3
"""Compares Colonnade's ids and decoded text with those of the `tokenizers` package (0.23.3) on random hard texts.

    python3 tests/golden/fuzz_tokenizers.py FOLDER [--characters N] [--seed S] [--prose FILE] [--build DIR]

FOLDER/<name>/tokenizer.json are the tokenizers; each gets N characters of its own. Texts mix scripts, digits, white
space, ill-formed UTF-8, NUL, long runs, look-alikes and parts of each tokenizer's own pieces, and lines of --prose.
Prints the number of differences and exits with 1 if there are any. A tokenizer that is refused by name counts as none.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

from make_tokenizer_golden import golden_line

BLOCKS = [(0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x58F), (0x590, 0x7BF),
          (0x900, 0xDFF), (0xE00, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF),
          (0x4E00, 0x9FFF), (0xA000, 0xA8FF), (0xAC00, 0xD7A3), (0xF900, 0xFFFF), (0x10000, 0x1F2FF), (0x1F300, 0x1FAFF),
          (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0, 0x10FFFF)]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u180e\u2003\u2028\u202f\u3000\u200b"
WORDS = ("I'M he'll WE'RE don't it\u2019s 'ſ 'S HTTPServer camelCase 3.14 1,234,567 ٣٤٥ ４５ ½ e\u0301 ﬁ Å İ ß Σς ǅ <0x0A> <0xFF> ▁ ▁▁ Ġ Ċ "
         "<s> </s> <unk> <|im_start|> <|im_end|> <think> [MASK] ##s 👨‍👩‍👧 🏳️‍🌈 🇩🇪 \x00 \ufffd \ufeff for(int i=0;i<n;++i){ } // /*").split(" ")
BAD = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]


def characters(rng, block, n):
    return "".join(chr(c) for c in (rng.randint(*block) for _ in range(n)) if not 0xD800 <= c < 0xE000)


def part(rng, pieces, prose):
    kind = rng.randrange(10)
    if kind < 2:
        return characters(rng, rng.choice(BLOCKS), rng.randint(1, 12)).encode()
    if kind == 2:
        return (rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 17])).encode()
    if kind == 3:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4))).encode()
    if kind == 4:
        return rng.choice(BAD) if rng.random() < 0.3 else rng.choice(WORDS).encode()
    if kind == 5:
        return (rng.choice("a= \n0中-é😀.") * rng.choice([2, 3, 5, 40, 300])).encode()
    if kind == 6:
        return "".join(rng.choice("0123456789.,") for _ in range(rng.randint(1, 12))).encode()
    if kind == 7:
        return rng.choice(pieces).encode()
    line = rng.choice(prose)
    begin = rng.randrange(max(1, len(line) - 80))
    return line[begin:begin + rng.randint(1, 80)].encode()


def write_texts(path, tokenizer, options, rng):
    pieces = list(tokenizer.get_vocab()) + [t.content for t in tokenizer.get_added_tokens_decoder().values()] * 50
    prose = [line for line in open(options.prose, encoding="utf-8", errors="replace") if len(line) > 20]
    total = 0
    with open(path, "w") as f:
        while total < options.characters:
            raw = b"".join(part(rng, pieces, prose) for _ in range(rng.choice([1, 2, 5, 30, 60])))
            total += len(raw.decode(errors="replace"))
            f.write(golden_line(tokenizer, str(total), raw))
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--characters", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prose", default=__file__)
    parser.add_argument("--build", default="build")
    options = parser.parse_args()
    total, folders, failed = 0, 0, False
    for name in sorted(os.listdir(options.folder)):
        source = os.path.abspath(os.path.join(options.folder, name, "tokenizer.json"))
        if not os.path.exists(source):
            continue
        with tempfile.TemporaryDirectory() as root:
            os.makedirs(os.path.join(root, name))
            os.symlink(source, os.path.join(root, name, "tokenizer.json"))
            total += write_texts(os.path.join(root, name, "golden.jsonl"), Tokenizer.from_file(source), options,
                                 random.Random(f"{options.seed} {name}"))
            run = subprocess.run([os.path.join(options.build, "bin/hugging_face_tokenizer_test"), "--gtest_filter=*more_tokenizers"],
                                 env=dict(os.environ, COLONNADE_TOKENIZERS=root), capture_output=True, text=True)
        folders += "1 tokenizers:" in run.stdout
        for line in re.findall("^refused: .*|.* tokenizers: .*", run.stdout, re.M):
            print(f"{name}: {line}", flush=True)
        if run.returncode != 0 and "\nrefused: " not in run.stdout:
            failed = True
            print("\n".join(run.stdout.splitlines()[:40]))
    print(json.dumps({"tokenizers": folders, "characters": total, "seed": options.seed, "equal": not failed}))
    sys.exit(failed)


main()
