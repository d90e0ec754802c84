#!/usr/bin/env bash
# Tests packages on bare systems: Debian 12 and 13 as debootstrap makes them, without network. Installs the .deb, runs help,
# doctor, a tokenizer and a short training from nothing, compares weights with those of a build for this machine, trains
# with a real model if there is one, removes the package and looks for what is left. The same with the .tar.gz and
# scripts/install.sh. Needs root, debootstrap and a mirror of Debian; half an hour with the builds, five minutes without.
#   scripts/test_packages.sh [--packages DIR] [--native BUILD] [--systems DIR] [--mpi] [--container] [SUITE...]
#     --packages DIR   what scripts/make_packages.sh made (default: build-package/packages)
#     --native BUILD   a build by the preset release (default: build)
#     --systems DIR    where the two systems are kept for the next time (default: build-package/systems)
#     --mpi            also two ranks by mpirun; installs openmpi-bin into a copy of the system, from the mirror
#     --container      also packaging/Containerfile by buildah, on top of the first system
#     SUITE            bookworm, trixie (default: both)
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "test_packages.sh: $*" >&2; exit 1; }
skip() { echo "test_packages.sh: skipped: $*"; exit 77; }
say() { printf '\n== %s ==\n' "$*"; }

packages=build-package/packages native=build systems=build-package/systems mpi=false container=false suites=()
while [ $# -gt 0 ]; do
    case "$1" in
        --packages) packages=${2:?--packages needs a folder}; shift ;;
        --native) native=${2:?--native needs a folder}; shift ;;
        --systems) systems=${2:?--systems needs a folder}; shift ;;
        --mpi) mpi=true ;;
        --container) container=true ;;
        bookworm | trixie) suites+=("$1") ;;
        *) fail "unknown argument '$1'; the head of this script has them all" ;;
    esac
    shift
done
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
[ "$(id -u)" -eq 0 ] || skip "a system in a folder needs root"
for tool in debootstrap unshare ip; do command -v $tool >/dev/null || skip "$tool is not installed"; done
(cd "$packages" && sha256sum --quiet -c SHA256SUMS) || fail "no packages in $packages; scripts/make_packages.sh makes them"
deb=$(echo "$packages"/*.deb)
native=$(realpath "$native")

work=$(mktemp -d)
mounted=()
cleanup() {
    local folder
    for folder in "${mounted[@]}"; do umount "$folder" || true; done
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

# --- The data and what this machine makes of it --------------------------------------------------------------------------
short=(model.hidden_size=128 model.intermediate_size=352 max_steps=20 save_steps=20 logging_steps=5)
model=quickstart/SmolLM2-135M-Instruct.Q4_1.gguf # of scripts/quickstart.sh
[ -e $model ] || model=
tokenizer=(tokenizer train --text quickstart/text.txt --output quickstart/tokenizer --vocab-size 2000 --threads 2
    --special '<|im_start|>' --special '<|im_end|>')
from_scratch=(train configs/from_scratch.yaml overwrite_output_dir=true "${short[@]}")
ranks=(mpirun --allow-run-as-root --oversubscribe --bind-to none -np 2)
fine_tune=(train configs/quickstart.yaml overwrite_output_dir=true "model_name_or_path=$model" max_steps=2 save_steps=2 logging_steps=1
    "datasets[0].max_samples=40" "eval_datasets[0].max_samples=4")

adapters=()

make_input() { # make_input FOLDER: configs and data of the quickstart
    mkdir -p "$1/quickstart"
    cp -r configs "$1"
    cp "$work"/*.jsonl "$work/text.txt" "$1/quickstart"
    [ -z "$model" ] || cp $model "$1/quickstart"
}
weights_of() { (cd "$1/quickstart" && sha256sum from_scratch/model.safetensors tokenizer.model "${adapters[@]}"); }

say "On this machine"
"$native/bin/wordnet_chat" --train "$work/train.jsonl" --validation "$work/validation.jsonl" --text "$work/text.txt" --limit 3000
make_input "$work/native"
run_native() { (cd "$work/native" && "$native/bin/colonnade" "$@") >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the native build fails: $*"; }; }
run_native "${tokenizer[@]}"
run_native "${from_scratch[@]}"
if [ -n "$model" ]; then
    run_native "${fine_tune[@]}"
    adapters=(adapters/adapter_model.safetensors)
fi
weights_of "$work/native" | tee "$work/native.sums"

# --- The systems -----------------------------------------------------------------------------------------------------------
inside() { # inside ROOT COMMAND...: without network but the machine itself, in a place of its own for processes and mounts
    local root=$1
    shift
    unshare --net --mount --pid --fork sh -ec 'ip link set lo up; exec chroot "$@"' sh "$root" \
        /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
        sh -ec 'mount -t proc proc /proc; cd /trial; "$@"' sh "$@"
}
quietly_inside() { inside "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "failed: ${*:2}"; }; }
files_in() { # files_in ROOT: without the journals of dpkg and apt
    (cd "$1" && find . -xdev \( -path ./trial -o -path ./proc -o -path ./dev -o -path ./tmp -o -path ./run -o -path ./var/lib/dpkg -o -path ./var/lib/apt \
        -o -path ./var/cache -o -path ./var/log -o -path ./root/.cache \) -prune -o -print | sort)
}
system() { # system SUITE: the system, made at the first call
    local base=$systems/$1
    if [ ! -e "$base/complete" ]; then
        mkdir -p "$systems"
        rm -rf --one-file-system "$base"
        debootstrap --variant=minbase "$1" "$base/root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/debootstrap.log" || { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap $1"; }
        touch "$base/complete"
    fi
}
# The weights, with the instructions of x86-64-v3 as in the native build, and with those that the loader chooses.
# Started by the loader, the program cannot start itself again to tell its threads to sleep while they wait.
as_v3=(/usr/bin/env OMP_WAIT_POLICY=passive /lib64/ld-linux-x86-64.so.2 --glibc-hwcaps-mask x86-64-v3)

use() { # use ROOT PROGRAM: what a user would do
    local root=$1 program=$2
    quietly_inside "$root" "$program" --help
    quietly_inside "$root" "$program" --version
    head -n 1 "$work/log"
    inside "$root" "$program" doctor --folder /trial | tee "$work/doctor" | grep -E "^(WRONG|note)|MPI|HTTP|libraries" || true
    ! grep -q '^WRONG' "$work/doctor" || fail "doctor finds something wrong"
    quietly_inside "$root" "${as_v3[@]}" "$program" "${tokenizer[@]}"
    quietly_inside "$root" "${as_v3[@]}" "$program" "${from_scratch[@]}"
    [ -z "$model" ] || quietly_inside "$root" "${as_v3[@]}" "$program" "${fine_tune[@]}"
    weights_of "$root/trial" | diff "$work/native.sums" - >&2 || fail "other weights than those of $native"
    echo "the same weights as the native build"
    quietly_inside "$root" "$program" "${from_scratch[@]}"
    echo "as the loader chooses: $(weights_of "$root/trial" | head -n 1)"
    # What is not there is named in one line.
    if inside "$root" env OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0 "$program" "${from_scratch[@]}" >"$work/log" 2>&1; then fail "two ranks ran without MPI"; fi
    grep -q 'error: Open MPI was not found; tried libmpi.so.40.* openmpi-bin' "$work/log" || { cat "$work/log" >&2; fail "no clear line about MPI"; }
    if inside "$root" "$program" train nobody/nothing /trial/quickstart/train.jsonl >"$work/log" 2>&1; then fail "it found a model in the air"; fi
    [ "$(grep -c 'error: ' "$work/log")" = 1 ] || { cat "$work/log" >&2; fail "no clear line about the hub"; }
    grep 'error: ' "$work/log"
}

for suite in "${suites[@]}"; do
    say "$suite"
    system "$suite"
    root=$work/$suite
    cp -a "$systems/$suite/root" "$root"
    mount --bind /dev "$root/dev"
    mounted+=("$root/dev")
    make_input "$root/trial"
    cp "$deb" "$root/trial"
    # Recommended packages (libcurl4) are left out on purpose.
    files_in "$root" >"$work/before"
    quietly_inside "$root" dpkg -i "/trial/$(basename "$deb")"
    use "$root" /usr/bin/colonnade
    name=$(dpkg-deb -f "$deb" Package)
    quietly_inside "$root" dpkg --purge "$name"
    files_in "$root" >"$work/after"
    diff "$work/before" "$work/after" >&2 || fail "uninstalling the package left or took files"
    echo "nothing is left of the .deb"

    cpu=()
    [ "$name" = colonnade ] || cpu=(--cpu)
    cp -r scripts/install.sh "$packages" "$root/trial"
    released=/trial/$(basename "$packages")
    quietly_inside "$root" sh /trial/install.sh --from "$released" --prefix /opt/colonnade "${cpu[@]}"
    use "$root" /opt/colonnade/bin/colonnade
    quietly_inside "$root" sh /trial/install.sh --uninstall --prefix /opt/colonnade
    printf 'X' | dd of="$root/$released/$(basename "$packages"/*.tar.gz)" bs=1 seek=5000 conv=notrunc status=none
    if inside "$root" sh /trial/install.sh --from "$released" --prefix /opt/colonnade "${cpu[@]}" >"$work/log" 2>&1; then fail "a damaged archive was installed"; fi
    grep 'is damaged' "$work/log"
    rmdir "$root/opt/colonnade" 2>/dev/null || true
    files_in "$root" >"$work/after"
    diff "$work/before" "$work/after" >&2 || fail "install.sh --uninstall left or took files"
    echo "nothing is left of the .tar.gz"

    if $mpi; then
        quietly_inside "$root" dpkg -i "/trial/$(basename "$deb")"
        cp /etc/resolv.conf "$root/etc/resolv.conf"
        chroot "$root" sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends openmpi-bin' >"$work/log" 2>&1 ||
            { tail -n 5 "$work/log" >&2; fail "cannot install openmpi-bin"; }
        (cd "$work/native" && "${ranks[@]}" "$native/bin/colonnade" "${from_scratch[@]}" >"$work/log" 2>&1) || { cat "$work/log" >&2; fail "two native ranks"; }
        quietly_inside "$root" "${ranks[@]}" "${as_v3[@]}" /usr/bin/colonnade "${from_scratch[@]}"
        diff <(weights_of "$work/native") <(weights_of "$root/trial") >&2 || fail "two ranks: other weights than those of $native"
        echo "two ranks: the same weights as the native build"
    fi
done

if $container; then
    say "Container"
    command -v buildah >/dev/null || skip "buildah is not installed"
    build() { buildah --storage-driver vfs --root "$work/storage" --runroot "$work/storage_run" "$@"; }
    base=$(build from scratch)
    build add "$base" "$systems/${suites[0]}/root" / >/dev/null
    build commit -q "$base" colonnade-test-base
    build build -q --isolation chroot --build-arg BASE=localhost/colonnade-test-base -f packaging/Containerfile -t colonnade-test "$packages"
    tested=$(build from localhost/colonnade-test)
    build run --isolation chroot "$tested" -- colonnade --version | head -n 1
    build run --isolation chroot "$tested" -- colonnade doctor --folder /tmp | grep HTTP
fi
say "Done"
