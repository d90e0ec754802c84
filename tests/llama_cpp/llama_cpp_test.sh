#!/usr/bin/env bash
# Exported GGUF files under a real llama.cpp. Exit 77 (skipped) without the Python packages numpy and xllamacpp.
#   llama_cpp_test.sh PROGRAM     PROGRAM: build/bin/colonnade; COLONNADE_PYTHON: the interpreter that has the packages
set -euo pipefail
python=${COLONNADE_PYTHON:-python3}
command -v "$python" >/dev/null || { echo "skipped: no $python here"; exit 77; }
exec "$python" -B "$(dirname "$0")/check_export.py" "$1"
