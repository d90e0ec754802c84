#!/usr/bin/env python3
"""Imports a run's records with the real package, as `trackio show` does, and compares them with metrics.jsonl.

    TRACKIO_DIR=DIR check_trackio.py RUN PROJECT        # needs: pip install trackio
"""
import json
import sys

from trackio import fragments
from trackio.sqlite_storage import SQLiteStorage

run, project = sys.argv[1:]
imported = fragments.import_inbox_dir()
lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
assert imported == len(lines), (imported, len(lines))
assert fragments.import_inbox_dir() == 0, "the inbox is not empty"
name = run.rstrip("/").split("/")[-1]
records = SQLiteStorage.get_logs(project, name)
losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
evals = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
assert {r["step"]: r["train/loss"] for r in records if "train/loss" in r} == losses, records
assert {r["step"]: r["eval/loss"] for r in records if "eval/loss" in r} == evals, records
config = SQLiteStorage.get_run_config(project, name)
assert config["learning_rate"] == 0.01 and config["stage"] == "sft", config
print(f"Trackio: {imported} records, {len(losses)} losses, {len(config)} config values")
