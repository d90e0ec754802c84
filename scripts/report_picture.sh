#!/usr/bin/env bash
# Takes a picture of the head and the curves of a run's report, docs/images/report.png by default. Needs chromium.
#
#   scripts/report_picture.sh RUN [PICTURE]          BIN: folder of colonnade, build/bin by default
set -euo pipefail
cd "$(dirname "$0")/.."
run=$(realpath "$1") picture=$(realpath -m "${2:-docs/images/report.png}")
"${BIN:-build/bin}/colonnade" report "$run"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,900 \
    --screenshot="$picture" "file://$run/report.html" 2> /dev/null
