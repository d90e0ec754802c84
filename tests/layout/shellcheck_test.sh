#!/usr/bin/env bash
# No script has warnings of shellcheck. Exit 77 (skipped) without shellcheck.
set -euo pipefail
cd "$(dirname "$0")/../.."

command -v shellcheck >/dev/null || { echo "skipped: no shellcheck here"; exit 77; }
find scripts tests engine .ci \( -name '*.sh' -o -path .ci/run \) -print0 | xargs -0 shellcheck --severity=warning
