#!/usr/bin/env bash
# Feeds mutated files to the readers of other people's files, under AddressSanitizer and UndefinedBehaviorSanitizer.
#   scripts/fuzz.sh [--seconds N] [FORMAT...] [-- FUZZ OPTIONS]   N seconds (20) for each format; default: all formats
#   scripts/fuzz.sh --replay FILE     reads a file that failed; a debugger: gdb --args build-sanitize/bin/fuzz --replay FILE
# The formats: build-sanitize/bin/fuzz --list. Inputs that fail are in fuzz-failures/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=20 formats=() options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
        --replay) replayed=$(realpath "${2:?--replay needs a file}"); shift 2 ;;
        --) shift; options=("$@"); break ;;
        -*) echo "fuzz.sh: unknown option '$1'; expected --seconds, --replay, or -- and options of fuzz" >&2; exit 2 ;;
        *) formats+=("$1"); shift ;;
    esac
done

scripts/install_packages.sh
cmake --preset sanitize
cmake --build --preset sanitize --target fuzz
fuzz=build-sanitize/bin/fuzz
if [ -n "${replayed:-}" ]; then exec "$fuzz" --replay "$replayed"; fi

# Every input is written to a file: memory is the place for it.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
export OMP_NUM_THREADS=1
[ ${#formats[@]} -gt 0 ] || mapfile -t formats < <("$fuzz" --list)
status=0
printf '%s\n' "${formats[@]}" |
    xargs -P "$(nproc)" -I{} "$fuzz" {} --seconds "$seconds" ${options[@]+"${options[@]}"} || status=1
[ $status -eq 0 ] || echo "fuzz.sh: a format failed; the lines above say which input, and how to read it again" >&2
exit $status
