#!/usr/bin/env bash
# Compiler launcher of the Hopper kernels: fails if ptxas reports that it serialises wgmma (C7510 to C7520). For ptxas
# that is only a remark, but it costs half of a kernel's speed. -Xptxas -warn-spills,-Werror (CMakeLists.txt) makes
# spills errors.
set -o pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2> >(tee "$log" >&2) || exit
wait
if grep -q '(C75[0-9][0-9])' "$log"; then
    echo "error: ptxas serialises wgmma, see above" >&2
    exit 1
fi
