#!/usr/bin/env python3
"""Shows that Colonnade and huggingface_hub share one cache, against a small hub on this machine.

    tests/golden/check_hub_cache.py [build/bin/train]

Needs huggingface_hub, transformers and torch. 1. huggingface_hub downloads a model and data; `train` uses them offline.
2. `train` downloads into another cache; huggingface_hub finds all files there without loading any again,
transformers loads the model offline, and the hash of every blob is right.
"""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.parse

root = pathlib.Path(__file__).resolve().parents[2]
train = sys.argv[1] if len(sys.argv) > 1 else str(root / "build/bin/train")
golden = root / "tests/golden/gguf"
rows = "".join(json.dumps({"input_ids": [1, 3 + i % 9, 3 + i % 7, 2]}) + "\n" for i in range(40)).encode()
commit = "0123456789abcdef0123456789abcdef01234567"
files = {
    "config.json": (golden / "llama.json").read_bytes(),
    "model.safetensors": (golden / "llama.safetensors").read_bytes(),
    "data/train-00000-of-00001.jsonl": rows,
}
requests = []


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path):
    return path.endswith(".safetensors")


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        requests.append(f"{self.command} {self.path}")
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        for kind, prefix in (("models", ""), ("datasets", "/datasets")):
            api = f"/api/{kind}/org/name"
            if path in (f"{api}/revision/main", f"{api}/revision/{commit}"):
                info = {"id": "org/name", "sha": commit, "private": False, "siblings": [{"rfilename": p} for p in files]}
                return self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
            if path.startswith(f"{api}/tree/"):
                entries = []
                for p, data in files.items():
                    entry = {"type": "file", "path": p, "size": len(data), "oid": git_sha1(data)}
                    if is_lfs(p):
                        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                    entries.append(entry)
                return self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
            for revision in ("main", commit):
                resolve = f"{prefix}/org/name/resolve/{revision}/"
                if path.startswith(resolve) and path[len(resolve):] in files:
                    data = files[path[len(resolve):]]
                    etag = hashlib.sha256(data).hexdigest() if is_lfs(path) else git_sha1(data)
                    return self.reply(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
                if path.startswith(resolve):
                    return self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})


def run(command, home, **variables):
    environment = {**os.environ, "HF_HOME": home, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **variables}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{command[:2]} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def python(code, home, **variables):
    return run([sys.executable, "-c", code], home, **variables)


def train_on_hub(home, folder, **variables):
    run([train, str(config), f"output_dir={folder}"], home, **variables)
    return hashlib.sha256(pathlib.Path(folder, "model.safetensors").read_bytes()).hexdigest()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
with tempfile.TemporaryDirectory() as scratch:
    config = pathlib.Path(scratch, "config.yaml")
    config.write_text(
        "model_name_or_path: org/name\ndatasets: [{path: org/name/data, split: train}]\nmax_length: 16\nmax_steps: 3\n"
        "device: cpu\nthreads: 1\nreport_to: none\nsave_strategy: no\n"
    )
    theirs, ours = scratch + "/theirs", scratch + "/ours"
    download = "import huggingface_hub as h\n" + "".join(
        f"h.snapshot_download('org/name', repo_type='{kind}')\n" for kind in ("model", "dataset")
    )
    python(download, theirs)
    requests.clear()
    first = train_on_hub(theirs, scratch + "/run1", HF_HUB_OFFLINE="1")
    assert not requests, requests
    print("train reads, offline, what huggingface_hub downloaded")

    second = train_on_hub(ours, scratch + "/run2")
    assert first == second
    requests.clear()
    names = ["config.json", "model.safetensors"]
    python(f"import huggingface_hub as h; h.snapshot_download('org/name', allow_patterns={names})", ours)
    assert not [r for r in requests if r.startswith("GET") and "/resolve/" in r], requests
    print(f"huggingface_hub finds what train downloaded; its requests: {requests}")
    requests.clear()
    loaded = python(
        "import transformers as t; m = t.AutoModelForCausalLM.from_pretrained('org/name', local_files_only=True)\n"
        "import huggingface_hub as h\n"
        "print(m.config.model_type, h.hf_hub_download('org/name', 'config.json', local_files_only=True))\n"
        "print(sorted((r.repo_id, r.repo_type, sorted(r.refs)) for r in h.scan_cache_dir().repos))\n"
        "assert not h.scan_cache_dir().warnings, h.scan_cache_dir().warnings",
        ours,
        HF_HUB_OFFLINE="1",
    )
    assert not requests, requests
    print("transformers loads it offline:", loaded.strip().replace(scratch, "..."))
    for blob in pathlib.Path(ours, "hub").glob("*/blobs/*"):
        data = blob.read_bytes()
        assert blob.name in (hashlib.sha256(data).hexdigest(), git_sha1(data)), blob
    print("every blob has the hash that its name says")
