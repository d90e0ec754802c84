#!/usr/bin/env bash
# A model that learns from its own answers: trains a tiny model on sums that are often wrong, then repeats: sample answers,
# check them, learn from the rewards (stage grpo). Prints the mean reward of each round and the answers to questions that
# were held out, before and after. A quarter of an hour on two cores; docs/examples.md shows a run.
#   scripts/arithmetic.sh [ROUNDS]     8 rounds by default
#   QUESTIONS, SAMPLES                 questions of a round, answers to each (1024, 8)
#   BIN                                folder of the programs, instead of build/bin
set -euo pipefail

fail() { echo "arithmetic.sh: $*" >&2; exit 2; }
rounds=${1:-8} questions=${QUESTIONS:-1024} samples=${SAMPLES:-8}
[[ $rounds =~ ^[0-9]+$ ]] || fail "'$rounds' rounds; expected a number"
cd "$(dirname "$0")/.."
bin=${BIN:-build/bin} work=quickstart/arithmetic
for program in colonnade arithmetic; do
    [ -x "$bin/$program" ] || fail "$bin/$program not found; build it: cmake --preset release && cmake --build --preset release --target colonnade arithmetic"
done
mkdir -p "$work"

say() { printf '\n== %s ==\n' "$*"; }
answer() { # answer MODEL QUESTIONS_FILE [options of generate]
    "$bin/colonnade" generate "$1" --prompts-file "$2" --json --max-new-tokens 8 --batch 64 "${@:3}"
}
exam() { # greedy answers to all questions that were held out
    answer "$1" "$work/exam.txt" >"$work/exam.jsonl"
    "$bin/arithmetic" score "$work/exam.jsonl"
}
quiet() { # the command's output only if it fails
    "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
}

say "Data: sums, three in five of them wrong"
"$bin/arithmetic" chats --train "$work/chats.jsonl" --validation "$work/held_out.jsonl" --text "$work/text.txt"
"$bin/arithmetic" prompts --held-out --output "$work/exam.txt"
"$bin/colonnade" tokenizer train --text "$work/text.txt" --output "$work/tokenizer" --vocab-size 273

say "Start: a tiny model learns from them"
quiet "$bin/colonnade" train configs/arithmetic.yaml overwrite_output_dir=true
policy=$work/start
printf 'held out  '
exam "$policy"

say "Rounds: $samples answers to each of $questions questions"
for ((round = 1; round <= rounds; ++round)); do
    "$bin/arithmetic" prompts --output "$work/prompts.txt" --count "$questions" --seed "$round"
    answer "$policy" "$work/prompts.txt" --samples "$samples" --temperature 1 --seed "$round" >"$work/samples.jsonl"
    printf 'round %-2s  ' "$round"
    "$bin/arithmetic" score "$work/samples.jsonl" --output "$work/rollouts.jsonl"
    quiet "$bin/colonnade" train configs/arithmetic_grpo.yaml overwrite_output_dir=true \
        model_name_or_path="$policy" output_dir="$work/policy_$((round % 2))"
    policy=$work/policy_$((round % 2))
done
printf 'held out  '
exam "$policy"

say "Next"
echo "ask the model    $bin/colonnade chat $policy"
