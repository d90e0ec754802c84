#!/usr/bin/env python3
"""Makes tests/golden/parquet: the same rows in Parquet files of every kind that pyarrow writes, and as JSON lines.

    python3 tests/golden/make_parquet_golden.py                    (needs pyarrow)
    python3 tests/golden/make_parquet_golden.py --large FOLDER     large files for COLONNADE_PARQUET_FOLDER

rows.jsonl        the rows; all of read_*.parquet hold them
read_*.parquet    codecs x page versions x encodings x sizes of pages and row groups
refused_*.parquet what is not read
weights.parquet   rows of token ids with weights
"""
import argparse, datetime, decimal, json, random, shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent / "parquet"
WORDS = "the cat sat on a mat; \"quoted\" back\\slash\nnew line\ttab \x01 é ü 猫 😀 \u2028".split(" ")
SCHEMA = pa.schema([
    ("id", pa.int64()),
    ("text", pa.string()),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("train", pa.bool_())]))),
    ("tokens", pa.list_(pa.int32())),
    ("history", pa.list_(pa.list_(pa.string()))),
    ("meta", pa.struct([("source", pa.string()), ("scores", pa.list_(pa.float64())),
                        ("inner", pa.struct([("n", pa.int16())]))])),
    pa.field("required", pa.string(), nullable=False),
    pa.field("count", pa.int32(), nullable=False),
    ("small", pa.uint8()), ("large", pa.uint64()), ("medium", pa.uint32()),
    ("single", pa.float32()), ("real", pa.float64()), ("flag", pa.bool_()),
    ("day", pa.date32()), ("time", pa.timestamp("us")),
    ("large_text", pa.large_string()),
    ("nothing", pa.string()),
])


def maybe(rng, value, share=0.2):
    return None if rng.random() < share else value


def text(rng, most=12):
    return " ".join(rng.choices(WORDS, k=rng.randrange(most)))


def row(rng, i):
    message = lambda: {"role": rng.choice(["user", "assistant"]), "content": maybe(rng, text(rng), 0.1),
                       "train": maybe(rng, rng.random() < 0.5, 0.5)}
    listed = lambda make, most: maybe(rng, [make() for _ in range(rng.randrange(most))])
    return {
        "id": maybe(rng, rng.choice([i, -i, 2**63 - 1, -2**63])),
        "text": maybe(rng, text(rng)),
        "messages": listed(lambda: maybe(rng, message(), 0.1), 5),
        "tokens": listed(lambda: maybe(rng, rng.randrange(-2**31, 2**31), 0.1), 20),
        "history": listed(lambda: listed(lambda: maybe(rng, text(rng, 4), 0.1), 4), 4),
        "meta": maybe(rng, {"source": maybe(rng, "wiki"), "scores": listed(lambda: rng.gauss(0, 1), 4),
                            "inner": maybe(rng, {"n": maybe(rng, rng.randrange(-9, 9))})}),
        "required": f"row {i}", "count": rng.randrange(-5, 5) + i,
        "small": maybe(rng, rng.randrange(256)), "large": maybe(rng, rng.choice([2**64 - 1, i])),
        "medium": maybe(rng, rng.choice([2**32 - 1, i])),
        "single": maybe(rng, rng.choice([0.1, 1.0, -2.5e-30, 3e30])),
        "real": maybe(rng, rng.choice([0.1, 1.0, -1e300, float("nan"), float("inf"), 1e-7])),
        "flag": maybe(rng, rng.random() < 0.5),
        "day": maybe(rng, datetime.date(2024, 2, 29)), "time": maybe(rng, datetime.datetime(2024, 2, 29, 12, 30)),
        "large_text": maybe(rng, text(rng)), "nothing": None,
    }


def write_lines(table, path):
    integers = {"day": pa.int32(), "time": pa.int64()}  # as they are stored
    for name, kind in integers.items():
        at = table.schema.get_field_index(name)
        if at >= 0:
            table = table.set_column(at, name, table.column(name).cast(kind))
    with open(path, "w") as file:
        for line in table.to_pylist():
            print(json.dumps(line, ensure_ascii=False), file=file)


def write_read(table):
    deltas = {"id": "DELTA_BINARY_PACKED", "tokens.list.element": "DELTA_BINARY_PACKED", "count": "DELTA_BINARY_PACKED",
              "large": "DELTA_BINARY_PACKED", "time": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY",
              "required": "DELTA_BYTE_ARRAY", "large_text": "DELTA_LENGTH_BYTE_ARRAY",
              "history.list.element.list.element": "DELTA_LENGTH_BYTE_ARRAY", "real": "BYTE_STREAM_SPLIT",
              "single": "BYTE_STREAM_SPLIT", "flag": "RLE", "meta.scores.list.element": "BYTE_STREAM_SPLIT",
              "medium": "BYTE_STREAM_SPLIT"}
    tiny = dict(data_page_size=64, write_batch_size=3, row_group_size=7)
    kinds = {
        "none": dict(compression="none"),
        "plain": dict(compression="none", use_dictionary=False),
        "snappy": dict(compression="snappy"),
        "gzip_checksum": dict(compression="gzip", write_page_checksum=True),
        "zstd": dict(compression="zstd", use_dictionary=["text"]),
        "v2": dict(compression="none", data_page_version="2.0"),
        "v2_snappy": dict(compression="snappy", data_page_version="2.0", use_dictionary=False),
        "v2_gzip": dict(compression="gzip", data_page_version="2.0"),
        "v2_zstd_checksum": dict(compression="zstd", data_page_version="2.0", write_page_checksum=True),
        "delta": dict(compression="none", use_dictionary=False, column_encoding=deltas),
        "v2_delta_zstd": dict(compression="zstd", use_dictionary=False, column_encoding=deltas, data_page_version="2.0"),
        "tiny_pages": dict(compression="snappy", **tiny),
        "v2_tiny_pages": dict(compression="zstd", data_page_version="2.0", **tiny),
        "tiny_dictionary": dict(compression="none", dictionary_pagesize_limit=32, **tiny),  # falls back to PLAIN
        "page_index": dict(compression="zstd", write_page_index=True, use_content_defined_chunking=True),
        "version_1": dict(compression="none", version="1.0"),
    }
    for name, options in kinds.items():
        pq.write_table(table, HERE / f"read_{name}.parquet", **options)


def write_refused():
    tables = {
        "map": pa.table({"text": ["a"], "facts": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32()))}),
        "binary": pa.table({"text": ["a"], "image": [b"\xff\xd8"]}),
        "decimal": pa.table({"text": ["a"], "price": [decimal.Decimal("1.50")]}),
    }
    for name, table in tables.items():
        pq.write_table(table, HERE / f"refused_{name}.parquet")
    texts = pa.table({"text": ["a" * 100]})
    for codec in ("brotli", "lz4"):
        pq.write_table(texts, HERE / f"refused_{codec}.parquet", compression=codec)
    times = pa.table({"text": ["a"], "at": [datetime.datetime(2024, 1, 1)]})
    pq.write_table(times, HERE / "refused_int96.parquet", use_deprecated_int96_timestamps=True)


def write_weights():
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("token_weights", pa.list_(pa.float32())),
                        ("weight", pa.float64())])
    rows = [{"input_ids": [1, 5, 6, 2], "token_weights": [0, 0.1, 2, 1], "weight": 0.3},
            {"input_ids": [1, 7], "token_weights": None, "weight": None}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), HERE / "weights.parquet", compression="none")


def write_large(folder):
    """Chats, 200 MB of text: with the defaults, and in one row group of several files' options."""
    rng = random.Random(2)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(1, 9))) for _ in range(20000)]
    say = lambda: " ".join(rng.choices(vocabulary, k=rng.randrange(20, 300)))
    rows = [{"id": i, "messages": [{"role": role, "content": say()} for role in ("user", "assistant") * 2]}
            for i in range(50000)]
    table = pa.Table.from_pylist(rows)
    write_lines(table, folder / "rows.jsonl")
    pq.write_table(table, folder / "default.parquet")
    pq.write_table(table, folder / "zstd.parquet", compression="zstd", row_group_size=1000)
    pq.write_table(table, folder / "v2_gzip.parquet", compression="gzip", data_page_version="2.0")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", type=Path)
    arguments = parser.parse_args()
    if arguments.large:
        return write_large(arguments.large)
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    rng = random.Random(1)
    table = pa.Table.from_pylist([row(rng, i) for i in range(40)], schema=SCHEMA)
    write_lines(table, HERE / "rows.jsonl")
    write_read(table)
    write_refused()
    write_weights()


if __name__ == "__main__":
    main()
