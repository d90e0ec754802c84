#!/usr/bin/env bash
# Records as text what the first ten minutes show, on terminals of 80x24 and of 200x50: a name, the download, the plan,
# training, Ctrl-C and resuming, a chat. Writes docs/first_ten_minutes.md. The model comes from a mirror of the hub on
# this machine.
#   scripts/record_screen.sh MODEL [OUTPUT.md]
#     MODEL   folder of HuggingFaceTB/SmolLM2-135M-Instruct: config.json, model.safetensors, tokenizer files
# Needs tmux and python3 (for the mirror), the built programs in build/bin, and WordNet (scripts/install_packages.sh).
#   BIN       folder of the programs, instead of build/bin
set -euo pipefail

fail() { echo "record_screen.sh: $*" >&2; exit 2; }
[ $# -ge 1 ] || fail "no model given; usage: scripts/record_screen.sh MODEL [OUTPUT.md]"
[ -e "$1/model.safetensors" ] || fail "$1/model.safetensors not found; expected the folder of the model"
for tool in tmux python3 git; do command -v "$tool" >/dev/null || fail "$tool is not installed"; done
model=$(realpath "$1")
cd "$(dirname "$0")/.."
bin=${BIN:-$PWD/build/bin} output=$(realpath "${2:-docs/first_ten_minutes.md}")
name=HuggingFaceTB/SmolLM2-135M-Instruct
commit=$(sha1sum <"$model/model.safetensors" | cut -d" " -f1) # of the mirror
work=${TMPDIR:-/tmp}/ten_minutes
[ -e "$work" ] && fail "$work exists; remove it"
server=
finish() {
    tmux -L record kill-server 2>/dev/null || true
    [ -z "$server" ] || kill "$server"
    rm -rf "$work"
}
trap finish EXIT

# The hub's interface as files: what they answer does not depend on the query.
make_mirror() {
    local api=$work/mirror/api/models/$name file entries=
    mkdir -p "$api/revision" "$api/tree" "$work/mirror/$name/resolve"
    ln -s "$model" "$work/mirror/$name/resolve/$commit"
    for file in "$model"/*; do
        local size base oid
        size=$(stat -Lc %s "$file") base=$(basename "$file") oid=$(git hash-object "$file")
        local lfs=
        if [ "$size" -gt 1000000 ]; then lfs=",\"lfs\":{\"oid\":\"$(sha256sum <"$file" | cut -d' ' -f1)\",\"size\":$size}"; fi
        entries+="${entries:+,}{\"type\":\"file\",\"path\":\"$base\",\"size\":$size,\"oid\":\"$oid\"$lfs}"
    done
    echo "{\"sha\":\"$commit\"}" >"$api/revision/main"
    echo "[$entries]" >"$api/tree/$commit"
    (cd "$work/mirror" && exec python3 -u -m http.server --bind 127.0.0.1 0) >"$work/server.log" 2>&1 &
    server=$!
    until port=$(grep -om1 'port [0-9]*' "$work/server.log" | cut -d' ' -f2) && [ -n "$port" ]; do sleep 0.1; done
}

make_data() {
    "$bin/wordnet_chat" --train "$work/chats.jsonl" --validation "$work/held_out.jsonl" --text "$work/text.txt" --limit 400 >/dev/null
    cat >"$work/my.yaml" <<EOF
model_name_or_path: $name
datasets: [{path: chats.jsonl}]
eval_datasets: [{path: held_out.jsonl}]
finetuning_type: lora
max_length: 256
packing_length: 512
gradient_accumulation_steps: 2
num_train_epochs: 1
learning_rate: 1e-3
logging_steps: 2
eval_strategy: steps
eval_steps: 10
output_dir: run
EOF
}

begin() { # begin COLUMNS ROWS
    rm -rf "$work/run" "$work/.cache"
    tmux -L record -f /dev/null new-session -d -x "$1" -y "$2" -s it \
        "cd $work && HOME=$work HF_ENDPOINT=http://127.0.0.1:$port PATH=$bin:\$PATH PS1='\$ ' HISTFILE=/dev/null LC_ALL=C.UTF-8 OMP_WAIT_POLICY=passive bash --norc"
    printf '\n## %s columns, %s rows\n' "$1" "$2" >>"$output"
    sleep 1
}
end() { tmux -L record kill-server; }
screen() { tmux -L record capture-pane -p -t it; }
enter() { tmux -L record send-keys -t it -l "$1" && tmux -L record send-keys -t it Enter; }
press() { tmux -L record send-keys -t it "$1"; }
await() { # await TEXT [SECONDS]: until the screen shows it
    for ((i = 0; i < ${2:-300} * 10; ++i)); do
        if screen | grep -qe "$1"; then return; fi
        sleep 0.1
    done
    screen >&2
    fail "'$1' did not appear"
}
frame() { # frame CAPTION: what the screen shows now
    # shellcheck disable=SC2016 # a fence of Markdown
    printf '\n%s\n\n```text\n%s\n```\n' "$1" "$(screen | sed 's/ *$//')" >>"$output"
}

record_size() { # record_size COLUMNS ROWS
    begin "$1" "$2"
    enter "clear; cat my.yaml"
    sleep 1
    frame "A config: a model's name, chats, LoRA."
    enter "clear; colonnade plan my.yaml"
    await "MiB left\|MiB/" 30
    frame "The first command that needs the model downloads it."
    await "copy for saves"
    sleep 0.5
    frame "The plan: exact steps, samples and tokens, and the memory. Nothing has been trained."
    enter "clear; colonnade train my.yaml"
    await "step 1/"
    sleep 2
    frame "The first step is done. The last line moves; the lines above it stay."
    await "step 8/"
    sleep 3
    press C-c
    await "will save and stop" 5
    frame "Ctrl-C in the middle of a step is answered at once,"
    await "stopped by"
    sleep 0.5
    frame "and the run ends after the step."
    enter "clear; colonnade train my.yaml resume_from_checkpoint=auto"
    await "batches"
    sleep 1
    frame "The run resumes where it stopped. An evaluation has its own moving line,"
    await "step 14/"
    sleep 1
    frame "and leaves one that stays."
    await "^adapters"
    sleep 0.5
    frame "The end: the curve, with the evaluations beside it, and where everything is."
    enter "clear; colonnade chat run"
    await "^>$"
    enter "What part of speech is curative?"
    await "^>$"
    enter "What is another word for the noun sofa?"
    sleep 1
    await "^>$"
    frame "A conversation with the result."
    end
}

mkdir "$work"
make_mirror
make_data
cat >"$output" <<EOF
# The first ten minutes, as a terminal shows them

Recorded $(date -u +%F) by \`scripts/record_screen.sh\` with $("$bin/colonnade" --version | head -1) on $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)):
the model is SmolLM2-135M-Instruct from a mirror of the hub on the same machine, the data 400 chats out of WordNet. Each frame is the
whole screen at that moment, without its colours; nothing was edited. To record it again:

\`\`\`sh
scripts/record_screen.sh FOLDER_OF_THE_MODEL
\`\`\`
EOF
record_size 80 24
record_size 200 50
