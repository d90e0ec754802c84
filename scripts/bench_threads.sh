#!/usr/bin/env bash
# How long OpenMP's threads should spin before they sleep: wall time of `train` and `generate` for several values, with
# nothing else running and beside busy loops, one per core. Prints medians in seconds. docs/benchmarks.md has figures.
#   scripts/bench_threads.sh [BIN [ROUNDS]]     BIN: folder of the programs (build/bin); ROUNDS: repetitions (5)
set -euo pipefail
unset OMP_WAIT_POLICY GOMP_SPINCOUNT
bin=$(realpath "${1:-$(dirname "$0")/../build/bin}") rounds=${2:-5}
config=$(realpath "$(dirname "$0")/../configs/from_scratch.yaml")
settings=(OMP_WAIT_POLICY=passive GOMP_SPINCOUNT={1000,10000,30000,100000,300000}) # libgomp's own default: 300000

work=$(mktemp -d) busy=()
stop() { [ ${#busy[@]} -eq 0 ] || { kill "${busy[@]}" && wait "${busy[@]}"; } 2>/dev/null || true; busy=(); }
trap 'stop; rm -rf "$work"' EXIT
cd "$work"
mkdir quickstart
"$bin/wordnet_chat" --train quickstart/train.jsonl --validation quickstart/validation.jsonl --text quickstart/text.txt --limit 6000
"$bin/train_tokenizer" --text quickstart/text.txt --output quickstart/tokenizer --vocab-size 2000 \
    --special "<|im_start|>" --special "<|im_end|>"
train() { "$bin/train" "$config" overwrite_output_dir=true eval_strategy=no eval_on_start=false max_steps=4 model.hidden_size=128; }
generate() { "$bin/generate" quickstart/from_scratch --raw --max-new-tokens 48 --temperature 1 -p "a noun that"; }
(export OMP_WAIT_POLICY=passive; train) >log 2>&1 # makes the store and the model

for round in $(seq "$rounds"); do
    for load in idle busy; do
        [ $load = idle ] || for _ in $(seq "$(nproc)"); do
            while :; do :; done &
            busy+=($!)
        done
        for setting in "${settings[@]}"; do
            for program in train generate; do
                start=$(date +%s%N)
                (export "${setting?}"; $program) >log 2>&1 || { cat log >&2; exit 1; }
                elapsed=$((($(date +%s%N) - start) / 1000000))
                echo "$program $load $setting $elapsed" >>"$work/times"
            done
        done
        stop
    done
    echo "round $round of $rounds" >&2
done
sort -k1,3 -k4n times | awk -v n="$rounds" '
    NR % n == int((n + 1) / 2) % n { printf "%-9s %-5s %-24s %6.2f s\n", $1, $2, $3, $4 / 1000 }'
