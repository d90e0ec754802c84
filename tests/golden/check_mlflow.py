#!/usr/bin/env python3
"""Reads a run from an MLflow server with the real package and compares it with metrics.jsonl.

    MLFLOW_TRACKING_URI=ADDRESS check_mlflow.py RUN PROJECT        # needs: pip install mlflow
"""
import json
import sys

from mlflow.tracking import MlflowClient

run, project = sys.argv[1:]
lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
client = MlflowClient()
experiment = client.get_experiment_by_name(project)
runs = client.search_runs([experiment.experiment_id])
assert len(runs) == 1, runs
info, data = runs[0].info, runs[0].data
assert info.status == "FINISHED" and info.run_name == run.rstrip("/").split("/")[-1], info
assert data.params["learning_rate"] == "0.01" and data.params["stage"] == "sft", data.params
for key, ours in (("train/loss", "loss"), ("eval/loss", "eval_loss"), ("train/num_tokens", "num_tokens")):
    found = {m.step: m.value for m in client.get_metric_history(info.run_id, key)}
    assert found == {line["step"]: line[ours] for line in lines if ours in line}, (key, found)
print(f"MLflow: {len(data.params)} params, {len(data.metrics)} metrics, {info.status}")
