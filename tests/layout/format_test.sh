#!/usr/bin/env bash
# Every C++ and CUDA source is formatted as .clang-format says, by clang-format 14 (other versions differ in places).
# Exit 77 (skipped) without that version. To format: clang-format-14 -i FILE...
set -euo pipefail
cd "$(dirname "$0")/../.."

formatter=$(command -v clang-format-14 || command -v clang-format || true)
if [ -z "$formatter" ] || ! "$formatter" --version | grep -q 'version 14\.'; then
    echo "skipped: no clang-format 14 here (package clang-format-14)"
    exit 77
fi
find engine attention layers data train scripts tests \( -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) -print0 |
    xargs -0 "$formatter" --dry-run --Werror
