#!/usr/bin/env python3
"""Prints the encoding speed of one thread, Colonnade's and the `tokenizers` package's, in MB of UTF-8 per second of CPU
time, on the same text in documents of 2 KB.

    python3 scripts/bench_tokenizers.py --text FILE [--build DIR] FOLDER...      # FOLDER/tokenizer.json

"cold" is the first pass over the text, "warm" the best of the next ones, when the cache of words is full.
"""
import argparse
import os
import re
import subprocess
import sys
import time

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
from tokenizers import Tokenizer  # noqa: E402  (it reads the variables)


def ours(build, path, text):
    run = subprocess.run([os.path.join(build, "bin/hugging_face_tokenizer_test"), "--gtest_filter=*speed"], capture_output=True, text=True,
                         env=dict(os.environ, COLONNADE_TOKENIZER_JSON=path, COLONNADE_TEXT=text))
    speeds = [float(s) for s in re.findall(r"([0-9.]+) MB/s", run.stdout)]
    if run.returncode != 0 or len(speeds) < 2:
        sys.exit(f"{path}: {run.stdout}{run.stderr}")
    return speeds[0], max(speeds[1:])


def package(path, data):
    tokenizer = Tokenizer.from_file(path)
    documents = [data[i:i + 2048].decode(errors="replace") for i in range(0, len(data), 2048)]
    start = time.process_time()
    tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    return len(data) / 1e6 / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", required=True)
    parser.add_argument("--build", default="build")
    parser.add_argument("--package-bytes", type=int, default=4_000_000, help="the package is timed on this much text")
    parser.add_argument("folders", nargs="+")
    options = parser.parse_args()
    with open(options.text, "rb") as f:
        data = f.read(options.package_bytes)
    print(f"{'MB/s of one thread':32} {'cold':>7} {'warm':>7} {'tokenizers':>11} {'ratio':>7}")
    for folder in options.folders:
        path = os.path.join(folder, "tokenizer.json")
        cold, warm = ours(options.build, path, options.text)
        theirs = package(path, data)
        print(f"{os.path.basename(os.path.normpath(folder)):32} {cold:7.1f} {warm:7.1f} {theirs:11.1f} {cold / theirs:7.1f}", flush=True)


main()
