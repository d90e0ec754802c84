#!/usr/bin/env bash
# include_order.sh accepts this tree, and names the file and the line of includes that break the order.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/include_order.sh"

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for folder in engine attention layers data train scripts; do cp -r "$here/../../$folder" "$tree"; done
plant() {  # plant FILE HEADER: an include in line 2 of a new file must be refused
    printf '#pragma once\n#include "%s"\n' "$2" > "$tree/$1"
    if found=$("$here/include_order.sh" "$tree"); then
        echo "a planted include of $2 in $1 was accepted" >&2
        exit 1
    fi
    if ! grep -q "^$1:2: .*$2" <<< "$found"; then
        printf 'expected %s:2, found:\n%s\n' "$1" "$found" >&2
        exit 1
    fi
    rm "$tree/$1"
}
plant engine/device/planted.h engine/io/files.h
plant attention/planted.h engine/io/hdf5.h
plant layers/planted.h attention/mask.h
plant data/planted.h layers/linear.h
plant train/model/planted.h train/step/learner.h
plant train/run/planted.h train/bench/step_timing.h
