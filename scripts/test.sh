#!/usr/bin/env bash
# Builds everything and runs every test that this machine can run.
#   scripts/test.sh [--preset release|native|debug|sanitize] [ctest options]
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
if [ "${1:-}" = --preset ]; then
    preset=${2:?--preset needs a name}
    shift 2
fi

scripts/install_packages.sh
cmake --preset "$preset"
cmake --build --preset "$preset"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
ctest --preset "$preset" --parallel "$(nproc)" "$@" | tee "$log" || status=$?

# ctest numbers every result line: "12/345 Test  #7: Name ....   Passed    0.01 sec".
count() { grep -cE "^ *[0-9]+/[0-9]+ Test +#.*$1" "$log" || true; }
passed=$(count ' Passed ') skipped=$(count '\*\*\*Skipped') all=$(count '')
echo "$passed passed, $((all - passed - skipped)) failed, $skipped skipped"
exit "$status"
