#!/usr/bin/env python3
"""Draws packed_mask.svg: a row with a chat and a preference pair, and the mask that keeps them apart.

    python3 docs/images/packed_mask.py        rewrites docs/images/packed_mask.svg

Query i sees key column j if j <= i < lts[j]: a sample, or an answer, ends where its columns' lts says.
"""
import html
import pathlib

# (part, tokens); an answer sees its prompt and itself, never the other answer.
PARTS = [
    ("chat", ["What", "is", "a", "stoa", "?", "A", "covered", "walk"]),
    ("prompt", ["Name", "an", "order", ":"]),
    ("chosen", ["Doric", "."]),
    ("rejected", ["Square", "."]),
]
ENDS = {"chat": 8, "prompt": 16, "chosen": 14, "rejected": 16}
TRAINED = {5, 6, 7, 12, 13, 14, 15}
COLOR = {"chat": "#4477aa", "prompt": "#228833", "chosen": "#66ccee", "rejected": "#ccbb44"}
CELL, LEFT, TOP = 22, 118, 92

tokens = [(part, text) for part, texts in PARTS for text in texts]
lts = [ENDS[part] for part, _ in tokens]
n = len(tokens)
out = []


def text(x, y, content, anchor="start", size=12, weight="normal", fill="#222222", turn=None):
    turned = f' transform="rotate({turn} {x} {y})"' if turn else ""
    out.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
               f'fill="{fill}"{turned}>{html.escape(content)}</text>')


text(LEFT, 22, "One packed row: a chat, then a prompt with two answers", size=15, weight="bold")
for i, (part, token) in enumerate(tokens):
    weight = "bold" if i in TRAINED else "normal"
    text(LEFT - 8, TOP + CELL * i + 15, token, "end", weight=weight)
    text(LEFT + CELL * i + 14, TOP - 8, token, turn=-55, weight=weight)
    for j, (of, _) in enumerate(tokens):
        seen = j <= i < lts[j]
        out.append(f'<rect x="{LEFT + CELL * j}" y="{TOP + CELL * i}" width="{CELL - 2}" height="{CELL - 2}" rx="3" '
                   f'fill="{COLOR[of] if seen else "#eeeeee"}"/>')
bottom = TOP + CELL * n
text(LEFT - 8, bottom + 18, "lts", "end", weight="bold")
for j, end in enumerate(lts):
    text(LEFT + CELL * j + 10, bottom + 18, str(end), "middle", weight="bold", fill=COLOR[tokens[j][0]])
text(LEFT - 8, bottom + 38, "position", "end")
position = 0
for j, (part, _) in enumerate(tokens):
    first = j == 0 or tokens[j - 1][0] != part
    if first:
        position = {"chat": 0, "prompt": 0, "chosen": 4, "rejected": 4}[part]
    text(LEFT + CELL * j + 10, bottom + 38, str(position), "middle", fill="#555555")
    position += 1
side = LEFT + CELL * n + 24
for k, line in enumerate(["Rows are queries, columns keys.", "Colored: visible. Gray: skipped.", "",
                          "One integer per column is the mask:", "rows from lts on do not see it.", "",
                          "Both answers read one copy of their", "prompt, and never each other.", "",
                          "Bold tokens are trained on."]):
    text(side, TOP + 16 + 19 * k, line)
width, height = side + 240, bottom + 52
page = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">\n<rect width="{width}" height="{height}" fill="#ffffff"/>\n')
path = pathlib.Path(__file__).with_name("packed_mask.svg")
path.write_text(page + "\n".join(out) + "\n</svg>\n")
