#!/usr/bin/env python3
"""Makes one table from the results of scripts/gpu_report.sh: bench_step beside PyTorch, case by case.

    gpu_report.py FOLDER        prints report.md; writes it and report.json to the folder

Memory is the maximum that each allocator handed out (planned for our arena, the peak for PyTorch). `device` is the
maximum that nvidia-smi reported, including context and workspaces. Ratios are ours divided by PyTorch's.
"""

import json
import pathlib
import sys

GIB = 2**30


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def device_gib(path):
    """The largest sample of nvidia-smi; the file has one number of MiB per line."""
    samples = [int(line) for line in path.read_text().split() if line.isdigit()] if path.exists() else []
    return max(samples) / 1024 if samples else None


def number(value, form):
    return "-" if value is None else format(value, form)


def get(figures, key, scale=1.0):
    value = figures.get(key) if figures else None
    return None if value is None else value * scale


def ratio(a, b):
    return None if a is None or not b else a / b


def step_table(folder, names):
    columns = ("case", "ours tok/s", "MFU", "step ms", "GiB", "device", "recomputed", "PyTorch tok/s", "MFU", "step ms",
               "GiB", "device", "speed", "memory")
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) - 1)]
    for name in names:
        ours, peer = (read(folder / f"{name}.{side}.json") for side in ("step", "peer"))
        cells = [name]
        for side, figures in (("step", ours), ("peer", peer)):
            cells += [number(get(figures, "tokens_per_second"), ",.0f"), number(get(figures, "mfu", 100), ".1f"),
                      number(get(figures, "step_ms"), ".1f"), number(get(figures, "memory_peak_bytes", 1 / GIB), ".1f"),
                      number(device_gib(folder / f"{name}.{side}.smi") if figures else None, ".1f")]
            if side == "step":
                cells.append(ours.get("gradient_checkpointing", "-") if ours else "-")
        cells += [number(ratio(get(ours, key), get(peer, key)), ".3f") for key in ("tokens_per_second", "memory_peak_bytes")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def phase_table(folder, names):
    steps = {name: figures for name in names if (figures := read(folder / f"{name}.step.json")) and "phases" in figures}
    phases = sorted({phase for figures in steps.values() for phase in figures["phases"]},
                    key=lambda phase: -max(f["phases"].get(phase, {"share": 0})["share"] for f in steps.values()))
    lines = ["| ms per step | " + " | ".join(steps) + " |", "|---|" + "--:|" * len(steps)]
    for phase in phases:
        found = [figures["phases"].get(phase) for figures in steps.values()]
        cells = ["-" if f is None else f"{f['ms']:.1f} ({100 * f['share']:.1f} %)" for f in found]
        lines.append(f"| {phase} | " + " | ".join(cells) + " |")
    return lines if steps else []


def bench_table(folder):
    """bench_step without a peer: preference pairs and several ranks."""
    columns = {"step_ms": ("step ms", ".1f", 1), "tokens_per_second": ("tok/s per rank", ",.0f", 1),
               "tokens_per_second_all": ("tok/s in all", ",.0f", 1), "exposed_ms": ("exposed ms", ".1f", 1),
               "pairs_per_second": ("pairs/s", ".1f", 1), "tokens_per_pair": ("tokens per pair", ".0f", 1),
               "memory_peak_bytes": ("GiB", ".1f", 1 / GIB)}
    lines = ["| bench_step | " + " | ".join(name for name, _, _ in columns.values()) + " |", "|---|" + "--:|" * len(columns)]
    for path in sorted(folder.glob("*.bench.json")):
        figures = read(path)
        cells = [number(get(figures, key, scale), form) for key, (_, form, scale) in columns.items()]
        lines.append(f"| {path.name.removesuffix('.bench.json')} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else []


def parity_table(parity):
    lines = ["| loss of | against | mean gap | largest gap | at step |", "|---|---|--:|--:|--:|"]
    for pair, gap in parity["gaps"].items():
        one, other = pair.split(" - ")
        lines.append(f"| {one} | {other} | {gap['mean']:.2e} | {gap['largest']:.2e} | {gap['step']} |")
    return lines


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    names = sorted({path.name.rsplit(".", 2)[0] for side in ("step", "peer") for path in folder.glob(f"*.{side}.json")})
    parity = read(folder / "parity.json")
    device = folder / "device.txt"
    sections = [device.read_text().splitlines() if device.exists() else [], step_table(folder, names) if names else [],
                phase_table(folder, names), bench_table(folder), parity_table(parity) if parity else []]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    report = {path.stem: read(path) for path in sorted(folder.glob("*.json")) if path.name != "report.json"}
    report["device_gib"] = {path.stem: device_gib(path) for path in sorted(folder.glob("*.smi"))}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
