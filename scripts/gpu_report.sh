#!/usr/bin/env bash
# Runs all GPU measurements on one machine: tests, compute-sanitizer, single ops, attention, whole steps beside PyTorch,
# loss curves; then makes one table (scripts/gpu_report.py). Stages run in the order below. Runs that do not fit into
# the time budget are skipped with a message.
#
#   scripts/gpu_report.sh [options] [STAGE ...]         default: all stages
#
#   build       configures and builds the programs of the other stages
#   tests       every test that runs on the GPU
#   sanitizer   memcheck, racecheck, initcheck and synccheck on small cases of the kernels
#   layers      bench_layers at the sizes of llama3.2-1b
#   attention   bench_attention, the mask families of scripts/peer_attention.py, rows of 32768
#   step        bench_step, every case
#   peer        scripts/peer_attention.py and scripts/peer_step.py, the same cases
#   pairs       bench_step on preference pairs: prompts shared and repeated, the whole model and adapters
#   ranks       bench_step under mpirun on two GPUs beside one; skipped with one GPU
#   parity      scripts/parity.py: 200 steps beside transformers
#   table       report.md and report.json from the results in the folder
#
#   --out DIR       folder for results and logs (build/gpu_report)
#   --build DIR     the build folder (build); if it is already configured, `build` only builds
#   --budget SEC    seconds for all stages together (1500)
#   --cases REGEX   only step cases with matching names (llama3.2-1b-chat, ...)
#   --python PROG   a Python with torch (python3)
#   --deterministic run bench_step with bit-identical results
set -uo pipefail
cd "$(dirname "$0")/.." || exit

out=build/gpu_report build=build budget=1500 only=. python=python3 deterministic=()
stages=()
while [ $# -gt 0 ]; do
    case $1 in
        --out | --build | --budget | --cases | --python)
            [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
            case $1 in
                --out) out=$2 ;;
                --build) build=$2 ;;
                --budget) budget=$2 ;;
                --cases) only=$2 ;;
                --python) python=$2 ;;
            esac
            shift 2
            ;;
        --deterministic) deterministic=(--deterministic); shift ;;
        build | tests | sanitizer | layers | attention | step | peer | pairs | ranks | parity | table) stages+=("$1"); shift ;;
        *) echo "unknown argument $1; see the head of $0" >&2; exit 2 ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=(build tests sanitizer layers attention step peer pairs ranks parity table)
asked() { [[ " ${stages[*]} " == *" $1 "* ]]; }
mkdir -p "$out/log"
export OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # as in containers
failures=0

# name model workload length packs accumulation moments(ours) weights(PyTorch's weights and moments)
cases=(
    "llama3.2-1b-chat llama3.2-1b chat 16384 1 1 float32 float32"
    "llama3.2-1b-long llama3.2-1b long 32768 1 1 float32 float32"
    "llama3.2-3b-chat llama3.2-3b chat 16384 1 1 float32 float32"
    "qwen2.5-1.5b-4x32 qwen2.5-1.5b fixed 1024 32 4 bfloat16 bfloat16"
    "qwen2.5-1.5b-8x4 qwen2.5-1.5b fixed 1024 4 8 bfloat16 bfloat16"
    "qwen2.5-7b-8x8 qwen2.5-7b fixed 1024 8 8 bfloat16 bfloat16"
)
warmup=3 steps=6

# run NAME SECONDS COMMAND...: runs COMMAND with its own log, for at most SECONDS or the rest of the budget. Returns the
# exit code of COMMAND; exit code $tolerated does not count as a failure of the report.
tolerated=0
run() {
    local name=$1 limit=$2 left=$((budget - SECONDS)) start=$SECONDS status=0
    shift 2
    if [ "$left" -lt 10 ]; then
        echo "  skipped  $name: no time left"
        return 1
    fi
    [ "$limit" -lt "$left" ] || limit=$left
    timeout --kill-after=10 "$limit" "$@" >"$out/log/$name.txt" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        echo "  ok       $name, $((SECONDS - start)) s"
    elif [ $status -eq $tolerated ]; then
        echo "  again    $name: $(tail -n 1 "$out/log/$name.txt" | cut -c1-300)"
    else
        failures=$((failures + 1))
        echo "  FAILED   $name, exit $status after $((SECONDS - start)) s: $(tail -n 1 "$out/log/$name.txt" | cut -c1-300)"
    fi
    return $status
}

# with_memory NAME SECONDS COMMAND...: like run, and samples the memory in use on the device to NAME.smi (MiB per line).
with_memory() {
    local sampler='' status=0
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits --id=0 --loop-ms=200 >"$out/$1.smi" 2>/dev/null &
        sampler=$!
    fi
    run "$@" || status=$?
    [ -z "$sampler" ] || { kill "$sampler"; wait "$sampler"; } 2>/dev/null
    return $status
}

each_case() {  # each_case FUNCTION: calls it with the fields of every selected case
    local case
    for case in "${cases[@]}"; do
        # shellcheck disable=SC2086
        [[ ! ${case%% *} =~ $only ]] || "$1" $case
    done
}

gpu_tests=$(grep -lE 'cuda_devices|test_gpu\.h|device_case\.h|tiny_model\.h|attention_call\.h|rank_runs\.h' tests/*/*_test.c* tests/*/*/*_test.c* |
    sed 's|.*/||; s|\.cpp||; s|\.cu||')
gpu_filter='*cuda*:*Gpu*:*bf16*:*Bf16*:*GPU*:*Hopper*'

stage_build() {
    [ -f "$build/CMakeCache.txt" ] || run configure 120 cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release || return
    local targets=(train bench_step bench_layers bench_attention)
    # shellcheck disable=SC2206
    if asked tests || asked sanitizer; then targets+=($gpu_tests); fi
    run build 900 cmake --build "$build" --target "${targets[@]}" || return
    asked sanitizer || return 0
    run configure-racecheck 120 cmake -S . -B "$build-racecheck" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCOLONNADE_RACECHECK=ON &&
        run build-racecheck 600 cmake --build "$build-racecheck" --target hopper_forward_test hopper_backward_test flashmask_test
}

stage_tests() {
    local test
    for test in $gpu_tests; do run "test-$test" 600 "$build/bin/$test" --gtest_filter="$gpu_filter" --gtest_brief=1; done
}

stage_sanitizer() {
    local sanitizer tool entry bin
    sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
    local entries=(
        "flashmask_test:*AnyLength*cuda*:*AnyHeadDim*cuda*"
        "hopper_forward_test:*OneFullTile*:*SeveralFullTiles*"
        "hopper_backward_test:*OneTile*:*OneItem*:*GroupedHeads*"
        "tile_plan_test:GpuTilePlanTest.AnyLength"
        "linear_test:*OnDevice.EqualsDouble/cuda"
        "rmsnorm_test:*OnDevice*cuda*"
        "rope_test:*OnDevice*cuda*"
        "swiglu_test:*OnDevice*cuda*"
        "gated_linear_test:*OnDevice*cuda*"
        "embedding_test:*OnDevice*cuda*"
        "gather_test:*OnDevice*cuda*"
        "head_loss_test:*OnDevice*cuda*"
        "adamw_test:*EqualsItsFormulas*cuda*:*Norm*cuda*"
    )
    for tool in memcheck racecheck initcheck synccheck; do
        for entry in "${entries[@]}"; do
            bin=$build/bin
            # The reasons are in engine/device/hopper/ptx.cuh.
            [[ ! $tool-$entry =~ ^(racecheck-hopper|synccheck-hopper|synccheck-flashmask) ]] || bin=$build-racecheck/bin
            [[ $tool-$entry != racecheck-gated* ]] || continue  # no racecheck build: one lane arrives for its warp
            run "$tool-${entry%%:*}" 120 "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 \
                "$bin/${entry%%:*}" --gtest_filter="${entry#*:}" --gtest_brief=1
        done
    done
}

stage_layers() {
    run layers 120 "$build/bin/bench_layers" --device cuda --tokens 16384 --hidden 2048 --ffn 8192 --vocab 128256 \
        --heads 32 --kv-heads 8 --chunk 2048
}

stage_attention() {
    local size
    run masks 60 "$python" scripts/peer_attention.py --length 32768 --columns-out "$out/masks" --columns-only || return
    for size in "128 32" "64 64"; do
        # shellcheck disable=SC2086
        set -- $size
        run "attention-head-$1" 240 "$build/bin/bench_attention" --device cuda --columns-file "$out"/masks/*.h5 \
            --head-dim "$1" --heads "$2" --without-full --json "$out/attention-head-$1.json"
    done
}

stage_attention_peer() {
    local size
    for size in "128 32" "64 64"; do
        # shellcheck disable=SC2086
        set -- $size
        run "attention-peer-$1" 200 "$python" scripts/peer_attention.py --length 32768 --head-dim "$1" --heads "$2" \
            --json "$out/attention-peer-$1.json"
    done
}

rows_of() {  # rows_of NAME MODEL WORKLOAD LENGTH PACKS ACCUMULATION: writes NAME.rows
    [ -f "$out/$1.rows" ] || run "rows-$1" 60 "$python" scripts/peer_step.py --workload "$3" --length "$4" --packs "$5" \
        --accumulation "$6" --warmup $warmup --steps $steps --lengths-out "$out/$1.rows" --rows-only
}

step_case() {
    local recompute status tolerated=0
    rows_of "$@" || return
    rm -f "$out/$1.step.json"
    # If memory does not suffice (exit 8), try again and store less for backward.
    for recompute in none selective block; do
        status=0
        tolerated=$([ $recompute = block ] && echo 0 || echo 8)
        with_memory "$1.step" 240 "$build/bin/bench_step" --device cuda --model "$2" --lengths "$out/$1.rows" --packs "$5" \
            --accumulation "$6" --optim-dtype "$7" --gradient-checkpointing $recompute --warmup $warmup --steps $steps \
            "${deterministic[@]}" --json "$out/$1.step.json" || status=$?
        [ $status -eq 8 ] || return $status
    done
}

peer_case() {
    rm -f "$out/$1.peer.json"
    with_memory "$1.peer" 300 "$python" scripts/peer_step.py --model "$2" --workload "$3" --length "$4" --packs "$5" \
        --accumulation "$6" --weights "$8" --compile blocks --warmup $warmup --steps $steps --json "$out/$1.peer.json"
}

stage_step() { each_case step_case; }
stage_peer() { stage_attention_peer; each_case peer_case; }

stage_pairs() {
    # shellcheck disable=SC2054
    local dpo=("$build/bin/bench_step" --device cuda --model llama3.2-1b --stage dpo --pair-lengths 512,256,256 --steps 10)
    local lora name
    for lora in "" "--lora-rank 16"; do
        name=pairs${lora:+-lora}
        # Both with 16 pairs per step; then with the same number of tokens.
        # shellcheck disable=SC2086
        {
            run "$name-shared" 60 "${dpo[@]}" $lora --length 16384 --json "$out/$name-shared.bench.json"
            run "$name-repeated" 60 "${dpo[@]}" $lora --length 24576 --repeat-prompts --json "$out/$name-repeated.bench.json"
            run "$name-repeated-short" 60 "${dpo[@]}" $lora --length 16384 --repeat-prompts \
                --json "$out/$name-repeated-short.bench.json"
        }
    done
}

stage_ranks() {
    local step=("$build/bin/bench_step" --device cuda --json) zero
    local chat=(--model llama3.2-1b --lengths "$out/ranks.rows" --steps 6)
    local fixed=(--model qwen2.5-7b --length 1024 --packs 8 --accumulation 8 --optim-dtype bfloat16 --warmup 1 --steps 3)
    if [ "$(nvidia-smi --list-gpus | wc -l)" -lt 2 ]; then
        echo "  skipped  ranks: fewer than two GPUs"
        return
    fi
    # Every rank and step has the same row, so that no rank waits for a longer one.
    run rows-ranks 60 "$python" scripts/peer_step.py --workload chat --length 16384 --warmup 0 --steps 1 --rows-only \
        --lengths-out "$out/ranks.rows" || return
    run ranks-1b-alone 60 "${step[@]}" "$out/ranks-1b-alone.bench.json" "${chat[@]}"
    for zero in 0 1; do
        run "ranks-1b-zero$zero" 90 mpirun -np 2 --bind-to none "${step[@]}" "$out/ranks-1b-zero$zero.bench.json" "${chat[@]}" \
            --zero-stage $zero
    done
    run ranks-7b-alone 120 "${step[@]}" "$out/ranks-7b-alone.bench.json" "${fixed[@]}"
    run ranks-7b-zero1 150 mpirun -np 2 --bind-to none "${step[@]}" "$out/ranks-7b-zero1.bench.json" "${fixed[@]}" --zero-stage 1
}

stage_parity() {
    run parity 400 "$python" scripts/parity.py --work "$out/parity" --train "$build/bin/train" --device cuda \
        --json "$out/parity.json" && tail -n 5 "$out/log/parity.txt"
}

stage_table() { "$python" scripts/gpu_report.py "$out"; }

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv 2>/dev/null | tee "$out/device.txt"
for stage in build tests sanitizer layers attention step peer pairs ranks parity table; do
    asked $stage || continue
    echo "$stage ($SECONDS s)"
    "stage_$stage"
done
echo "$failures failed, $SECONDS s"
[ $failures -eq 0 ]
