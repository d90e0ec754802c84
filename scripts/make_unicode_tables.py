#!/usr/bin/env python3
"""Writes data/text/unicode_tables.inc: what the `tokenizers` package (0.23.3) takes for letters, digits and so on.

    python3 scripts/make_unicode_tables.py > data/text/unicode_tables.inc

The package mixes three versions of Unicode: 16 in patterns, 17 in Rust's standard library, 9 in normalization. So the
tables are measured: the package is asked about every code point. Python's own tables only name candidates (canonical
pairs and combining classes), and the package confirms each one.
"""
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
EVERY = "".join(map(chr, POINTS))
HANGUL = range(0xAC00, 0xAC00 + 11172)


def removed_by(step):
    """The code points that a pre-tokenizer drops."""
    kept = [False] * len(POINTS)
    for _, (begin, end) in step.pre_tokenize_str(EVERY):
        for i in range(begin, end):
            kept[i] = True
    return [c for c, k in zip(POINTS, kept) if not k]


def matched_by(pattern):
    return removed_by(pre_tokenizers.Split(Regex(pattern + "+"), "removed"))


def not_nfc_inert():
    """Characters that NFC may change or combine with the one before."""
    nfd, nfc = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    seconds = {int(parts[1], 16) for c in POINTS if len(parts := unicodedata.decomposition(chr(c)).split()) == 2}
    jamo = range(0x1161, 0x1200)
    return [c for c in POINTS if c in seconds or c in jamo or nfc(chr(c)) != chr(c) or combining_class(c, nfd)]


def class_table():
    white, digits = pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)
    bits = [
        matched_by(r"\p{Lu}") + matched_by(r"\p{Lt}"),
        matched_by(r"\p{Ll}"),
        matched_by(r"\p{Lm}") + matched_by(r"\p{Lo}"),
        matched_by(r"\p{M}"),
        matched_by(r"\p{N}"),
        matched_by(r"\s"),
        matched_by(r"\p{P}"),
        matched_by(r"\p{S}"),
        matched_by(r"\d"),
        matched_by(r"\w"),
        [c for c in POINTS if len(white.pre_tokenize_str("a" + chr(c) + "a")) == 1],
        [c for c in POINTS if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3],
        removed_by(pre_tokenizers.Punctuation("removed")),
        matched_by(r"\p{Han}"),
        not_nfc_inert(),
    ]
    classes = [0] * 0x110000
    for bit, members in enumerate(bits):
        for c in members:
            classes[c] |= 1 << bit
    return classes


def numbers(values):
    lines, line = [], ""
    for value in values:
        if len(line) + len(str(value)) > 118:
            lines.append(line)
            line = ""
        line += f"{value},"
    return "\n".join(lines + [line])


def array(name, kind, values):
    print(f"extern const {kind} {name}[{len(values)}] = {{\n{numbers(values)}\n}};")


def write_classes():
    classes, blocks, pages, data = class_table(), {}, [], []
    for begin in range(0, 0x110000, 128):
        block = tuple(classes[begin:begin + 128])
        if block not in blocks:
            blocks[block] = len(blocks)
            data += block
        pages.append(blocks[block])
    array("unicode_pages", "uint16_t", pages)
    array("unicode_class_data", "uint16_t", data)


def combining_class(c, nfd):
    """The package's class: Python's, unless the package does not reorder the mark (its Unicode is older)."""
    mark, value = chr(c), unicodedata.combining(chr(c))
    if value == 0:
        return 0
    known = nfd("\u0315" + mark) != "\u0315" + mark if value < 232 else nfd(mark + "\u0334") != mark + "\u0334"
    return value if known else 0


def write_mapping(name, function):
    """Sorted code points, where each one's text begins, and all texts as code points."""
    keys, begins, texts = [], [0], []
    for c in POINTS:
        text = function(chr(c))
        if c in HANGUL or text == chr(c):
            continue
        keys.append(c)
        texts += map(ord, text)
        begins.append(len(texts))
    array(name + "_keys", "uint32_t", keys)
    array(name + "_begins", "uint16_t", begins)
    array(name + "_texts", "uint32_t", texts)


def write_ranges(name, points):
    """Pairs of a first and a last code point."""
    ranges = []
    for c in points:
        if ranges and c == ranges[-1] + 1:
            ranges[-1] = c
        else:
            ranges += [c, c]
    array(name, "uint32_t", ranges)


def write_filters():
    """What StripAccents drops, and BertNormalizer from clean text and behind NFD. Their tables are older than the rest."""
    step = normalizers.BertNormalizer
    clean = step(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False).normalize_str
    accents = step(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False).normalize_str
    strip = normalizers.StripAccents().normalize_str
    write_ranges("accents", [c for c in POINTS if strip("a" + chr(c)) == "a"])
    write_ranges("bert_controls", [c for c in POINTS if clean("a" + chr(c)) == "a"])
    write_ranges("bert_accents", [c for c in POINTS if accents("a" + chr(c)) == "a"])


def write_normalization():
    nfd, nfc = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    write_mapping("canonical", nfd)
    write_mapping("compatible", normalizers.NFKD().normalize_str)
    write_mapping("lowercase", normalizers.Lowercase().normalize_str)
    marks = [(c, k) for c in POINTS if (k := combining_class(c, nfd))]
    array("combining_keys", "uint32_t", [c for c, _ in marks])
    array("combining_classes", "uint8_t", [k for _, k in marks])
    pairs = []
    for c in POINTS:
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = (int(p, 16) for p in parts)
            if nfc(chr(first) + chr(second)) == chr(c) and nfd(chr(c)) != chr(c):
                pairs.append((first << 32 | second, c))
    pairs.sort()
    array("composition_keys", "uint64_t", [f"{k}u" for k, _ in pairs])
    array("composition_results", "uint32_t", [c for _, c in pairs])


print("// Written by scripts/make_unicode_tables.py")
write_classes()
write_filters()
write_normalization()
