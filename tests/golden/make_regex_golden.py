#!/usr/bin/env python3
"""Writes tests/golden/regex_golden.jsonl: the matches of regular expressions that the `tokenizers` package (0.23.3) finds.

    python3 tests/golden/make_regex_golden.py

A line: {"pattern", "text", "matches": the texts that match and are not empty}.
"""
import json
import os

from tokenizers import Regex, pre_tokenizers

PATTERNS = [
    # places, options and repeats, whose meaning differs between Oniguruma's Ruby syntax and others
    r"\s+$", r"^\w", r"a.b", r"(?m:a.b)", r"x(?i)a|b", r"(?i:'s|'re|k)", r"(?i)[a-k]+", r"(?i:x(?-i:A)x)", r"a{,2}", r"(?:ab){2}+", r"a{2}?", r"a{1,3}?",
    r"a{2,}+", r"a**", r"a?+a", r"a++b", r"a*+b", r"(?>a+)b", r"x{", r"x{a}", r"a{,}", r"a|", r"a{2,2}?", r"(a)(b)?", r"\Aa", r"b\z", r"b\Z",
    # classes
    r"\h+", r"\H+", r"[\h&&\D]+", r"[^\h\s]+", r"[]a]+", r"[^]a]+", r"[a-c-e]+", r"[-a]+", r"[a-]+", r"[a&&[^b]]+", r"[^a&&[ab]]+", r"[a[bc]]+",
    r"[\p{L}&&[^\p{Han}]]+", r"\p{^L}+", r"\P{L}+", r"\P{^N}+", r"[^\p{^L}]+", r"\p{Letter}+", r"\p{uppercase letter}", r"\p{Lu}", r"\p{Ll}+", r"\p{Lt}", r"\p{Lo}+",
    r"\p{M}+", r"\p{N}+", r"\p{Nd}+", r"\p{P}+", r"\p{S}+", r"\p{Z}+", r"\p{Cc}+", r"\p{Han}+", r"\p{Hiragana}+", r"\p{Cyrillic}+", r"\p{Greek}+", r"\p{Word}+",
    r"[\t\n\x0b\u3000\x{1F600}-\x{1F64F}]+", r"[\\\]\[\-^]+", r"\-\.\/\_", r"\e|\a|\f|\v|\t", r"[\b]", r".", r"\d+", r"\D+", r"\s", r"\S+", r"\w+", r"\W+", r"\R",
    # looking around
    r"\b\w", r"\B\w", r"\w\b", r"(?<=a)b", r"(?<!a)b", r"(?<=\d)(?=\p{L})", r"\d(?=(?:\d{3})+(?!\d))", r"(?<=ab|c)x", r"\s+(?!\S)|\s+",
    # of models
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+", r" {2,}",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"[^(\s|[.,!?…。，、।۔،])]+", r"(?=(\d{3})+(?!\d))\d", "[\r\n]", r"\p{L}\p{M}*",
]
# Some properties are PCRE2's own, whose Unicode is older: they are not compared on the text of new characters.
OLDER = [r"\p{Lo}+", r"\p{Cyrillic}+", r"\p{Greek}+", r"\p{Hiragana}+", r"\p{Z}+", r"\p{Cc}+"]
NEW = "\U0001e900\U00016d40\U00010d40\u1c89\ua7cb\U0001fae9\U00032300\u0c5d\U00011f50\u0cf3\U00010efd\u1b4e\u1c80 \u0870"
TEXTS = [
    "a b\nab  \n \nb a\n", "aaaaab aab ab b xab xAx xax x{ x{a} abab a.b a\nb abx cx", "I'S he'RE 'ſ \u212a K k Kk \u017f it's we've",
    "CAFÉ cafe\u0301 ßẞ ǅ ﬁ İı Σσς ªº ʰ 中文、漢字 ひらカナ 한국 Привет Ελλάδα ไทย हिन्दी العربية", "12 345 1234567 0xBEEF ٣٤ ４５ ½ ² Ⅷ 3.14 [\\]^-_./",
    "x\u00a0y\u3000z\u2028w\u0085v\u180e\u200b\u001f \t\r\n\x0b\x0c\x07\x1b\x08end", "😀👍🏽🇩🇪 👨‍👩‍👧 €$+<=>^`|~ «»„“—_ __a ‿b",
    NEW, "",
]


def main():
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "regex_golden.jsonl")
    with open(out, "w") as f:
        for pattern in PATTERNS:
            try:
                step = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
            except Exception as e:
                print(f"{pattern}: {e}")
                continue
            for text in TEXTS:
                if text == NEW and pattern in OLDER:
                    continue
                matches = [piece for piece, _ in step.pre_tokenize_str(text)]
                f.write(json.dumps({"pattern": pattern, "text": text, "matches": matches}, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
