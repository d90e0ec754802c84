#!/usr/bin/env python3
"""Compares tokenizer.json files that data/text/sentencepiece_export.h made with the SentencePiece models they come from,
under the packages `tokenizers` (0.23.3) and `sentencepiece` (0.2.3), on hard and random texts.

    COLONNADE_SENTENCEPIECE_JSON=FOLDER build/bin/sentencepiece_export_test
    python3 tests/golden/check_sentencepiece_export.py FOLDER [CHARACTERS, 1000000 by default]

FOLDER holds pairs NAME.model and NAME.json; COLONNADE_SENTENCEPIECE_MODELS=FOLDER makes the test read models of one's own.
"""
import glob
import random
import sys

import sentencepiece
from tokenizers import Tokenizer

COMMON = [" ", "  ", "    ", " " * 17, "a", "b", "the ", " The", "\n", "\n\n", "\t", "7", "2026", "é", "中", "日本語", "한국어", "สวัส",
          "नमस्ते", "😀", "👩‍👩‍👧", "\u00a0", "\u3000", "\u2028", "▁", "▁▁", "<s>", "</s>", "<0x0A>", "{\n    ", "==", "don't", "HTTPServer", "\x00", "ﬁ", "e\u0301"]


def texts(pieces, characters, seed):
    chosen = random.Random(seed)
    yield from ["", " ", "  x", "x  ", " " * 600, "a" * 3000, "a" + " " * 37 + "b"]
    while characters > 0:
        text = "".join(chosen.choice(COMMON) if chosen.random() < 0.5 else chosen.choice(pieces) for _ in range(chosen.randrange(1, 40)))
        if chosen.random() < 0.1:
            text = "".join(chr(c) for c in (chosen.randrange(1, 0x2FFFF) for _ in range(40)) if not 0xD800 <= c < 0xE000)
        characters -= len(text)
        yield text


def check(stem, characters):
    model, fast = sentencepiece.SentencePieceProcessor(model_file=stem + ".model"), Tokenizer.from_file(stem + ".json")
    fast.encode_special_tokens = True
    pieces = [model.id_to_piece(i).replace("▁", " ") for i in range(model.vocab_size()) if not model.is_control(i)]
    plain = [t.content for t in fast.get_added_tokens_decoder().values() if not t.special]
    prefix = model.piece_to_id("▁")
    done = lines = different = 0
    for text in texts(pieces, characters, 14):
        expected = model.encode(text)
        # The first piece of a text that begins with a user-defined one: SentencePiece puts its dummy prefix before it.
        if any(text.startswith(t) for t in plain) and expected[:1] == [prefix]:
            expected = expected[1:]
        if fast.encode(text, add_special_tokens=False).ids != expected:
            different += 1
            if different <= 3:
                print("differs:", repr(text[:200]))
        lines, done = lines + 1, done + len(text)
    print(f"{stem}: {lines} texts of {done} characters, {different} differ")
    return different


folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
stems = sorted(path[:-5] for path in glob.glob(folder + "/*.json"))
assert stems, f"no .json in {folder}"
sys.exit(1 if sum(check(stem, count) for stem in stems) else 0)
