#!/usr/bin/env bash
# The shared library exports the functions of its header, each of them and nothing else, and sets no handlers of the
# process that loads it.
#   exported_symbols_test.sh LIBRARY HEADER
set -euo pipefail
library=$1 header=$2

exported=$(nm -D --defined-only "$library" | awk '{print $3}' | sort)
declared=$(grep '^COLONNADE_API' "$header" | grep -oE 'colonnade_[a-z_]+\(' | tr -d '(' | sort)
diff <(echo "$declared") <(echo "$exported") || { echo "declared (<) and exported (>) functions differ" >&2; exit 1; }
if nm -D -C --undefined-only "$library" | grep -E 'set_(terminate|new_handler)| (execve|signal)@'; then
    echo "a library must leave this to the program" >&2
    exit 1
fi
if readelf -d "$library" | grep -E 'NEEDED.*(cublas|nccl|mpi)'; then
    echo "attention needs none of these libraries" >&2
    exit 1
fi
