#!/usr/bin/env bash
# Compiler launcher of the Hopper kernels: fails where ptxas says that it serialises wgmma (C7510 to C7520), which is a
# remark to it and costs a kernel half of its speed. Spills are errors by -Xptxas -warn-spills,-Werror (CMakeLists.txt).
set -o pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2> >(tee "$log" >&2) || exit
wait
if grep -q '(C75[0-9][0-9])' "$log"; then
    echo "error: ptxas serialises wgmma, see above" >&2
    exit 1
fi
