#!/usr/bin/env python3
"""Draws terminal.svg from a transcript on standard input: lines that begin with `$ ` are commands.

    tmux new-session -d -x 110 -y 30 ...      # run the commands, then
    tmux capture-pane -p | python3 docs/images/terminal.py
"""
import html
import pathlib
import sys

LINE, CHAR, PAD, BAR = 17, 7.3, 14, 26
lines = [line.rstrip() for line in sys.stdin.read().rstrip().splitlines()]
width = int(PAD * 2 + CHAR * max(map(len, lines)))
height = BAR + PAD * 2 + LINE * len(lines)
out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
       f'<rect width="{width}" height="{height}" rx="8" fill="#1e2127"/>',
       '<circle cx="18" cy="14" r="5" fill="#5c6370"/><circle cx="36" cy="14" r="5" fill="#5c6370"/>'
       '<circle cx="54" cy="14" r="5" fill="#5c6370"/>',
       '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12" xml:space="preserve">']
for i, line in enumerate(lines):
    color = "#98c379" if line.startswith("$ ") else "#dcdfe4"
    out.append(f'<text x="{PAD}" y="{BAR + PAD + LINE * i + 8}" fill="{color}">{html.escape(line)}</text>')
pathlib.Path(__file__).with_name("terminal.svg").write_text("\n".join(out) + "\n</g>\n</svg>\n")
