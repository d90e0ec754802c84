#!/usr/bin/env python3
"""Reads the logs of a short run with the real packages: TensorBoard, W&B (protobuf classes), csv.

    build/bin/train CONFIG output_dir=OUT 'report_to=[jsonl,tensorboard,csv,wandb]'
    check_logs.py OUT            # needs: pip install tensorboard wandb
"""
import csv
import glob
import json
import sys
import zlib

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from wandb.proto import wandb_internal_pb2

out = sys.argv[1]
records_of_log = [json.loads(line) for line in open(f"{out}/metrics.jsonl")]
lines = [line for line in records_of_log if "samples" not in line]
samples = {line["step"]: line["samples"] for line in records_of_log if "samples" in line}
losses = {line["step"]: line["loss"] for line in lines if "loss" in line}

events = EventAccumulator(f"{out}/runs")
events.Reload()
found = {e.step: e.value for e in events.Scalars("train/loss")}
assert found.keys() == losses.keys() and all(abs(found[s] - v) < 1e-6 * abs(v) for s, v in losses.items())
texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
         if tag.endswith("/text_summary")}
assert "learning_rate:" in texts["config/text_summary"] and "steps" in texts["plan/text_summary"], texts
for event in events.Tensors("eval/samples/text_summary") if samples else []:
    markdown = event.tensor_proto.string_val[0].decode()
    for sample in samples[event.step]:
        for key in ("prompt", "answer", "reference"):
            assert all("    " + line in markdown for line in sample[key].split("\n")), (markdown, sample)
content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
assert start.hparams["learning_rate"].number_value > 0 and start.group_name, start
print(f"TensorBoard: {len(found)} losses, texts {sorted(texts)}, {len(start.hparams)} hparams of {start.group_name}")

table = list(csv.DictReader(open(f"{out}/metrics.csv")))
assert len(table) == len(lines)
assert {int(row["step"]): float(row["loss"]) for row in table if row["loss"]} == losses
print(f"CSV: {len(table)} records, columns {', '.join(table[0])}")


def records(path):
    data = open(path, "rb").read()
    assert data[:7] == b":W&B\xe1\xbe\x00", data[:7]
    at, whole = 7, b""
    while at < len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        crc, length, kind = int.from_bytes(data[at:at + 4], "little"), int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        piece = data[at + 7:at + 7 + length]
        assert zlib.crc32(bytes([kind]) + piece) == crc
        whole += piece
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


path, = glob.glob(f"{out}/wandb/offline-run-*/run-*.wandb")
steps, kinds, texts = {}, [], {}
for record in records(path):
    kinds.append(record.WhichOneof("record_type"))
    if kinds[-1] == "run":
        config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
    if kinds[-1] == "history":
        values = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        if "train/loss" in values:
            steps[record.history.step.num] = values["train/loss"]
        if "eval/samples" in values:
            texts[record.history.step.num] = values["eval/samples"]
assert kinds[0] == "header" and kinds[1] == "run" and kinds[-1] == "exit", kinds
assert texts.keys() == samples.keys() and all(samples[s][0]["row"] in text for s, text in texts.items())
assert steps == losses and config["learning_rate"] > 0
print(f"W&B: {len(kinds)} records, {len(steps)} losses, {len(config)} config values")
