#!/usr/bin/env python3
"""Writes best_golden.json: what transformers decides about sequences of metrics, and which checkpoints it keeps.

    python3 tests/golden/make_best_golden.py        (transformers 5)

The functions are transformers' own, called in the order of Trainer._maybe_log_save_evaluate: the callback of early
stopping first, then the best metric.
"""
import json
import math
import os
import random
import tempfile
from types import SimpleNamespace

import transformers
from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def text(number):
    """As JSON: numbers that JSON lacks are texts."""
    return number if number is None or math.isfinite(number) else str(number)


def decide(metric, greater, patience, threshold, values):
    arguments = TrainingArguments("unused", use_cpu=True, report_to=[], eval_strategy="steps", save_strategy="best",
                                  load_best_model_at_end=True, metric_for_best_model=metric,
                                  greater_is_better=greater)
    trainer = SimpleNamespace(args=arguments, state=TrainerState())
    control = TrainerControl()
    stopping = EarlyStoppingCallback(patience, threshold)
    decisions = []
    for step, value in enumerate(values, 1):
        trainer.state.global_step = step
        metrics = {"eval_" + metric.removeprefix("eval_"): NUMBERS.get(value, value)}
        stopping.on_evaluate(arguments, trainer.state, control, metrics)
        best = Trainer._determine_best_metric(trainer, metrics, None)
        decisions.append({"best": best, "value": text(trainer.state.best_metric),
                          "step": trainer.state.best_global_step or 0,
                          "without_improvement": stopping.early_stopping_patience_counter,
                          "stop": control.should_training_stop})
        if control.should_training_stop:
            break
    return {"metric": metric, "greater_is_better": greater, "greater": arguments.greater_is_better,
            "patience": patience, "threshold": threshold, "values": values[:len(decisions)], "decisions": decisions}


def sequences():
    yield [3.0, 2.0, 2.5, 2.0, 1.9, 1.95]
    yield ["nan", 2.0, "nan", 1.0, "nan"]
    yield ["nan", "nan", "nan"]
    yield ["inf", 5.0, "inf", "-inf", 4.0]
    yield [1.0, 1.0, 1.0]
    yield [1.0, 0.95, 0.91, 0.89, 0.85]
    draw = random.Random(5)
    for _ in range(20):
        yield [draw.choice([round(draw.uniform(0, 2), 2), draw.uniform(-1, 1), "nan"]) for _ in range(8)]


def kept(steps, limit, best):
    with tempfile.TemporaryDirectory() as folder:
        for step in steps:
            os.mkdir(f"{folder}/checkpoint-{step}")
        rotate_checkpoints(folder, limit, f"{folder}/checkpoint-{best}" if best else None)
        left = sorted(int(name.split("-")[1]) for name in os.listdir(folder))
    return {"steps": steps, "keep": limit, "best": best, "left": left}


def main():
    cases = []
    for values in sequences():
        for metric, greater in (("loss", None), ("eval_loss", None), ("mean_token_accuracy", None), ("loss", True)):
            for patience, threshold in ((1, 0.0), (2, 0.0), (3, 0.05), (100, 0.1)):
                cases.append(decide(metric, greater, patience, threshold, values))
    rotations = [kept(steps, limit, best)
                 for steps in ([10], [10, 20], [10, 20, 30, 40], [5, 9, 100, 1000])
                 for limit in (0, 1, 2, 3, 9) for best in [0, *steps]]
    # Some of the random cases are enough.
    cases = cases[:96] + cases[96::5]
    path = os.path.join(os.path.dirname(__file__), "best_golden.json")
    with open(path, "w") as file:
        file.write("{" + f'"transformers": "{transformers.__version__}",\n"cases": [\n')
        file.write(",\n".join(json.dumps(case) for case in cases))
        file.write('],\n"rotations": [\n' + ",\n".join(json.dumps(each) for each in rotations) + "]}\n")
    print(f"{path}: {len(cases)} sequences, {len(rotations)} rotations")


if __name__ == "__main__":
    main()
