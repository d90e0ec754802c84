#!/usr/bin/env bash
# Feeds mutated files to the readers of other people's files, under AddressSanitizer and UndefinedBehaviorSanitizer.
#   scripts/fuzz.sh [--seconds N] [FORMAT...]  N seconds (20) for each format; default: all formats
#   scripts/fuzz.sh --inputs N [FORMAT...]     N inputs for most formats, fewer for slow ones: the same in every run
#   scripts/fuzz.sh --replay FILE     reads a file that failed; a debugger: gdb --args build-sanitize/bin/fuzz --replay FILE
# --seed N chooses the inputs: 1 with --inputs, else a random one, which is printed. Options of fuzz itself follow "--".
# The formats: build-sanitize/bin/fuzz --list. Inputs that fail are in fuzz-failures/.
set -euo pipefail
cd "$(dirname "$0")/.."

limits=() formats=() options=() seed=
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds | --inputs) limits+=("$1" "${2:?$1 needs a number}"); shift 2 ;;
        --seed) seed=${2:?--seed needs a number}; shift 2 ;;
        --replay) replayed=$(realpath "${2:?--replay needs a file}"); shift 2 ;;
        --) shift; options=("$@"); break ;;
        -*) echo "fuzz.sh: unknown option '$1'; expected --seconds, --inputs, --seed, --replay, or -- and options of fuzz" >&2
            exit 2 ;;
        *) formats+=("$1"); shift ;;
    esac
done
[ ${#limits[@]} -gt 0 ] || limits=(--seconds 20)
if [ -z "$seed" ]; then
    case " ${limits[*]} " in *" --inputs "*) seed=1 ;; *) seed=$RANDOM ;; esac
fi

scripts/install_packages.sh
cmake --preset sanitize
cmake --build --preset sanitize --target fuzz
fuzz=build-sanitize/bin/fuzz
if [ -n "${replayed:-}" ]; then exec "$fuzz" --replay "$replayed"; fi

# Every input is written to a file: memory is the place for it.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
export OMP_NUM_THREADS=1
[ ${#formats[@]} -gt 0 ] || mapfile -t formats < <("$fuzz" --list)
echo "fuzz.sh: --seed $seed"
status=0
printf '%s\n' "${formats[@]}" |
    xargs -P "$(nproc)" -I{} "$fuzz" {} --seed "$seed" "${limits[@]}" ${options[@]+"${options[@]}"} || status=1
[ $status -eq 0 ] || echo "fuzz.sh: a format failed; the lines above say which input, and how to read it again" >&2
exit $status
