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
import struct
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


def other_patterns():
    """Patterns of models that have no splitter of their own."""
    han = "&&[^\\p{Han}]]"
    lower = rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{han}*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{han}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    upper = rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{han}+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{han}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    end = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    return {
        "kimi": [r"[\p{Han}]+|" + lower + "|" + upper + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + end],
        "ling": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
        "deepseek_llm": ["[\r\n]", r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-\ud7ff]+"],
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


def charsmap(rules):
    """A precompiled_charsmap of {text: replacement}: a double array, built by first fit."""
    tree, texts, units, used = {}, b"", {0: 0}, {0}
    for key, value in rules.items():
        node = tree
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += value.encode() + b"\0"

    def place(node, at, label):
        base = next(b for b in range(1, 1 << 20) if not any((b ^ k) in used for k in node))
        used.update(base ^ k for k in node)
        units[at] = label | (0 in node) << 8 | (at ^ base) << 10
        for k, child in node.items():
            if k == 0:
                units[base] = child | 1 << 31
            else:
                place(child, base ^ k, k)

    place(tree, 0, 0)
    size = (max(units) | 255) + 1  # the package reads any child of a node that is there
    trie = struct.pack(f"<{size}I", *(units.get(i, 0) for i in range(size)))
    return base64.b64encode(struct.pack("<I", len(trie)) + trie + texts).decode()


def from_parts(tokenizer, **parts):
    return Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | parts))


def other_models():
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.train_from_iterator(TRAINING, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False))
    unigram.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    yield "unigram", unigram
    rules = {"ﬁ": "fi", "e\u0301": "é", "\u200d": "", "①": "1", "\u3000": " ", "\n": " ", "\t": " ", "\r\n": "<crlf>", "А": "A", "½": "1/2"}
    model = json.loads(unigram.to_str())["model"]
    model["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
    yield "unigram_charsmap", from_parts(unigram, model=model | {"byte_fallback": True}, normalizer={
        "type": "Precompiled", "precompiled_charsmap": charsmap(rules)}, decoder=json.loads(decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace()]).__getstate__()))
    for name, lowercase in (("bert_uncased", True), ("bert_cased", False)):
        bert = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
        bert.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        bert.decoder = decoders.WordPiece(cleanup=lowercase)
        bert.train_from_iterator(TRAINING, trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False))
        bert.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        yield name, bert
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(TRAINING, trainers.WordLevelTrainer(vocab_size=80, special_tokens=["[UNK]", "|", "<pad>"], show_progress=False))
    words.decoder = decoders.CTC()
    yield "word_level_ctc", words


def builders():
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, patterns in known_patterns().items():
        form = {"qwen2": normalizers.NFC(), "qwen3_5": normalizers.NFC()}.get(name)
        splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
        yield name, byte_level(splits + [plain], form, ignore_merges=name == "llama3")
    for name, patterns in other_patterns().items():
        yield name, byte_level([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [plain])
    yield "lookahead_merged", byte_level([pre_tokenizers.Split(Regex(r"(?=[A-Z])|(?<=\d)(?=\p{L})"), "merged_with_next"), plain])
    yield from other_models()
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
