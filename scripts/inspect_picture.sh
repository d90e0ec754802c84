#!/usr/bin/env bash
# Plants three faults in chats out of WordNet, shows them in the terminal, and takes a picture of the page,
# docs/images/inspect.png by default. Needs chromium.
#
#   scripts/inspect_picture.sh MODEL [PICTURE]          BIN: folder of colonnade, build/bin by default
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "inspect_picture.sh: expected a model, a folder or a GGUF file" >&2; exit 2; }
model=$(realpath "$1") picture=$(realpath -m "${2:-docs/images/inspect.png}") bin=$(realpath "${BIN:-build/bin}")
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
"$bin/wordnet_chat" --train all.jsonl --validation held_out.jsonl --text text.txt --limit 320 > /dev/null
head -n 297 all.jsonl > chats.jsonl
long=$(printf 'and another word of it, %.0s' {1..120})
cat >> chats.jsonl << ROWS
{"messages": [{"role": "user", "content": "[INST] What does the noun oak mean? [/INST]"}, {"role": "assistant", "content": "A tree."}]}
{"messages": [{"role": "user", "content": "Tell me about oaks."}, {"role": "assistant", "content": "An oak is $long"}]}
ROWS
# Text rows are taken as they are: this one has no end token.
cat > config.yaml << CONFIG
model_name_or_path: $model
datasets:
  - {path: chats.jsonl}
  - {path: no_end.jsonl}
max_length: 256
excess_length: truncate
packing_length: 1024
output_dir: run
CONFIG
echo '{"input_ids": [1, 504, 5, 6, 7, 8, 9], "labels": [-100, -100, -100, 6, 7, 8, 9]}' > no_end.jsonl
"$bin/colonnade" inspect config.yaml --sample chats.jsonl:298
"$bin/colonnade" inspect config.yaml --sample chats.jsonl:298 --html inspect.html
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1500 --virtual-time-budget=3000 \
    --screenshot="$picture" "file://$work/inspect.html" 2> /dev/null
echo "$picture"
