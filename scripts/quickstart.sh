#!/usr/bin/env bash
# From nothing to a trained model: installs packages, builds, makes a data set out of WordNet, trains a tokenizer and a
# small Llama on it, shows the result. Takes six to ten minutes on two cores, not counting the build.
#   scripts/quickstart.sh [--short]     --short: less data, half a minute, for a first look and for CI
set -euo pipefail
cd "$(dirname "$0")/.."

samples=150000 vocabulary=6000 overrides=()
case "${1:-}" in
    "") ;;
    --short) samples=6000 vocabulary=2000 overrides=(model.hidden_size=128 model.intermediate_size=352 max_steps=60 save_steps=30) ;;
    *) echo "quickstart.sh: unknown option '$1'; expected --short or nothing" >&2; exit 2 ;;
esac

say() { printf '\n== %s ==\n' "$*"; }

say "Packages and build"
scripts/install_packages.sh
cmake --preset release
cmake --build --preset release --target train prepare generate train_tokenizer wordnet_chat
bin=build/bin

say "Data: WordNet's entries as chats"
mkdir -p quickstart
"$bin/wordnet_chat" --train quickstart/train.jsonl --validation quickstart/validation.jsonl --text quickstart/text.txt --limit "$samples"

say "Tokenizer: SentencePiece, $vocabulary pieces"
"$bin/train_tokenizer" --text quickstart/text.txt --output quickstart/tokenizer --vocab-size "$vocabulary" \
    --special "<|im_start|>" --special "<|im_end|>" --threads "$(nproc)"

say "Rows: tokenised, packed, checked"
"$bin/prepare" configs/quickstart.yaml "${overrides[@]}"

say "Training"
"$bin/train" configs/quickstart.yaml overwrite_output_dir=true "${overrides[@]}"

say "Answers to words that were held out"
"$bin/generate" quickstart/model --max-new-tokens 40 \
    --prompts-file <(grep -o '"content":"What[^"]*"' quickstart/validation.jsonl | awk -F'"' 'NR % 97 == 1 && ++n <= 6 {print $4}')
