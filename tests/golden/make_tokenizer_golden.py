#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/<name>/{tokenizer.json, golden.jsonl}: small tokenizers of each supported form, and
what the `tokenizers` package (0.23.3) makes of hard texts.

    python3 tests/golden/make_tokenizer_golden.py [OUT]

A line of golden.jsonl: {"name", "b64": the text's bytes, "ids", "special": ids with the post-processor, "text": the ids
decoded, "skip": decoded without special tokens}. "special" and "skip" are left out where they equal "ids" and "text".
"""
import base64
import json
import os
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
TRAINING = ["The quick brown fox jumps over the lazy dog, didn't it? I'll say 1234567 times: we've HTTPServer's 3.14.",
            "for (int i = 0; i < n; ++i) {\n    total += values[i];  // sum\n}\n\n\treturn total;\n",
            "Größe, façade, naïve, Ελληνικά, Привет мир, 你好世界，日本語のテキスト、한국어 텍스트, עברית, العربية 😀👍🏽"] * 4


def texts():
    out = [("empty", b"")]
    for n in (1, 2, 3, 40):
        out += [(f"spaces_{n}", b" " * n), (f"word_spaces_{n}_word", b"x" + b" " * n + b"y"), (f"letters_{n}", b"a" * n),
                (f"newlines_{n}", b"\n" * n + b"z"), (f"digits_{n}", b"7" * n)]
    lines = TRAINING[:3] + [
        "I'M HE'LL we'Re it\u2019s 'ſ don't'", "x\u00a0y\u3000z\u2028w\u0085v", "a\r\nb\r\rc\n \n  d \t e", "\x00NUL\x01\x7f",
        "12 345 6789 ٣٤٥ ４５ ½ ² Ⅷ", "e\u0301 \u1112\u1161\u11ab a\u0323\u0307 a\u0307\u0323 \u212b \ufb01 ①", "ÅÄÖ ǅ ß İ Σς",
        "สวัสดีครับ नमस्ते ক্ষ ꙮ", "👨‍👩‍👧‍👦🏳️‍🌈🇩🇪", "<|im_start|>user\nHi <|im_end|> <s>a</s> [X]  <think>\n\nno</think>", "▁ ▁▁a ▁b▁c", "a.b.a. a.a.",
        "/* $%^&*()_+ */ -- == != <= >= `x` ~y {z}|[w]\\ \"q\"", "camelCaseWords HTTPServerError XMLHttpRequest iPhone McDonald", "<0x0A><0xFF>Ġhi",
        "ﬁnal naïve café CAFÉ", " leading and trailing ", "word[X]word [X] X[X]  [ L ]", "\u07ca\u2c00\U0001e900\U00016d40 new \U00010d40"]
    out += [(f"line_{i}", line.encode()) for i, line in enumerate(lines)]
    bad = [b"\xff", b"a\xc3", b"\xe2\x82", b"\xf0\x9f\x98x", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\x80\x80ok"]
    out += [(f"bad_{i}", raw) for i, raw in enumerate(bad)]
    for i, a in enumerate(lines):
        if i % 2:
            out.append((f"pair_{i}", (a + lines[3 + (i + 7) % (len(lines) - 3)]).encode()))
    return out


def known_patterns():
    """The patterns in data/text/split_pattern.cpp, taken from the families' files."""
    contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    end = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    lower = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    upper = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    words = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    punctuation = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
    deepseek = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
    return {
        "llama3": [contraction + words % r"\p{N}{1,3}" + end],
        "qwen2": [contraction + words % r"\p{N}" + end],
        "qwen3_5": [contraction + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + end],
        "gpt4o": [lower + contraction + "?|" + upper + contraction + r"?|\p{N}{1,3}|" + punctuation + end],
        "tekken": [lower + "|" + upper + r"|\p{N}|" + punctuation + end],
        "deepseek_v3": [r"\p{N}{1,3}", "[一-龥\u3040-\u309f\u30a0-\u30ff]+", deepseek],
        "deepseek_coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥\u0800-一가-\ud7ff]+"],
    }


def byte_level(steps, normalizer=None, size=340, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("[X]", single_word=True, normalized=True),
                          AddedToken("[ L ]", lstrip=True, rstrip=True, normalized=True), AddedToken("\n\n\n\n", normalized=False)])
    return tokenizer


def marked(normalizer, pre_tokenizer, decoder):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    # Words are cut while training only, so that the merges are those of words.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    data["pre_tokenizer"] = json.loads(pre_tokenizer.__getstate__()) if pre_tokenizer else None
    data["decoder"] = json.loads(decoder.__getstate__())
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def builders():
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, patterns in known_patterns().items():
        form = {"qwen2": normalizers.NFC(), "qwen3_5": normalizers.NFC()}.get(name)
        splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
        yield name, byte_level(splits + [plain], form, ignore_merges=name == "llama3")
    yield "gpt2_nfkc", byte_level([gpt2], normalizers.NFKC())
    yield "lowercase", byte_level([gpt2], normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]))
    yield "digits_prefix_space", byte_level([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()])
    yield "falcon", byte_level([pre_tokenizers.Punctuation("contiguous"), gpt2, pre_tokenizers.Digits(),
                                pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    for behavior, invert in (("removed", True), ("merged_with_previous", False), ("merged_with_next", True), ("contiguous", False)):
        yield f"split_{behavior}", byte_level([pre_tokenizers.Split("a.", behavior, invert), plain], size=280)
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    yield "llama2", marked(prepend, None, decoders.Sequence(fallback + [decoders.Strip(" ", 1, 0)]))
    yield "gemma", marked(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                          decoders.Sequence(fallback))
    for scheme in ("first", "always", "never"):
        yield f"metaspace_{scheme}", marked(None, pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme == "always"),
                                            decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]))


def golden_line(tokenizer, title, raw):
    text = raw.decode(errors="replace")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    line = {"name": title, "b64": base64.b64encode(raw).decode(), "ids": ids}
    special = tokenizer.encode(text).ids
    if special != ids:
        line["special"] = special
    line["text"] = tokenizer.decode(ids, skip_special_tokens=False)
    skip = tokenizer.decode(ids)
    if skip != line["text"]:
        line["skip"] = skip
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "tokenizers")
    for name, tokenizer in builders():
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        tokenizer.save(os.path.join(folder, "tokenizer.json"), pretty=False)
        tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "golden.jsonl"), "w") as f:
            for title, raw in texts():
                f.write(golden_line(tokenizer, title, raw))


if __name__ == "__main__":
    main()
