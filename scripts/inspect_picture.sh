#!/usr/bin/env bash
# Plants three faults in chats out of WordNet, shows them in the terminal, and takes a picture of the page,
# docs/images/inspect.png by default. Needs chromium and SmolLM2.
#
#   scripts/inspect_picture.sh MODEL [PICTURE]          BIN: folder of colonnade, build/bin by default
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "inspect_picture.sh: expected a model, a folder or a GGUF file" >&2; exit 2; }
model=$(realpath "$1") picture=$(realpath -m "${2:-docs/images/inspect.png}") bin=$(realpath "${BIN:-build/bin}")
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
ln -s "$model" .
"$bin/wordnet_chat" --train all.jsonl --validation held_out.jsonl --text text.txt --limit 320 > /dev/null
head -n 297 all.jsonl > chats.jsonl
long=$(printf 'and another word of it, %.0s' {1..120})
cat >> chats.jsonl << ROWS
{"messages": [{"role": "user", "content": "[INST] What does the noun oak mean? [/INST]"}, {"role": "assistant", "content": "A tree."}]}
{"messages": [{"role": "user", "content": "Tell me about oaks."}, {"role": "assistant", "content": "An oak is $long"}]}
ROWS
# "What does the noun oak mean?" and its answer as SmolLM2's tokens, without <|im_end|> behind the answer.
system="1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198"
question="1, 4093, 198, 1780, 1072, 260, 11531, 16033, 1441, 47, 2, 198, 1, 520, 9531, 198" answer="49, 3187, 338, 10607, 44575, 30"
unlearned=$(printf -- '-100, %.0s' {1..37})
echo "{\"input_ids\": [$system, $question, $answer], \"labels\": [$unlearned$answer]}" > no_end.jsonl
cat > config.yaml << CONFIG
model_name_or_path: ${model##*/}
datasets:
  - {path: chats.jsonl}
  - {path: no_end.jsonl}
max_length: 256
excess_length: truncate
packing_length: 1024
output_dir: run
CONFIG
"$bin/colonnade" inspect config.yaml --sample chats.jsonl:298
"$bin/colonnade" inspect config.yaml --sample chats.jsonl:298 --html inspect.html
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1500 --virtual-time-budget=3000 \
    --screenshot="$picture" "file://$work/inspect.html" 2> /dev/null
echo "$picture"
