#!/usr/bin/env python3
"""Makes tests/golden/split_golden.json: which rows a split takes, by Hugging Face datasets.

    python3 tests/golden/make_split_golden.py          (needs datasets)

[[split, rows, first row, row behind the last], ...]
"""
import json
from pathlib import Path

from datasets.arrow_reader import ReadInstruction

RANGES = ["", "[:3]", "[3:]", "[-3:]", "[:-3]", "[2:5]", "[20:30]", "[:10%]", "[10%:]", "[33%:67%]", "[-5%:]", "[:-5%]",
          "[-100%:50%]", "[5:2]", "[:]"]


def main():
    cases = []
    for text in RANGES:
        for rows in (0, 1, 7, 10, 50, 101, 1234567):
            [taken] = ReadInstruction.from_spec("train" + text).to_absolute({"train": rows})
            cases.append(["train" + text, rows, taken.from_, taken.to])
    lines = ",\n".join(json.dumps(case) for case in cases)
    (Path(__file__).parent / "split_golden.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
