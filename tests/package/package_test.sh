#!/usr/bin/env bash
# Installs a build to a folder of its own, builds the outside project of this folder against it, and runs what it gives.
# Colonnade's warnings and instruction set must not be among that project's flags, installed or by add_subdirectory.
#   package_test.sh BUILD WHOLE     BUILD: a finished build; WHOLE: ON if it has training
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) build=$1 whole=$2
work=$build/package
rm -rf "$work"
mkdir -p "$work"

quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }
clean_flags() {  # clean_flags FOLDER SOURCE...: the compile commands of these sources there
    local folder=$1 source commands
    shift
    for source in "$@"; do
        commands=$(grep -E "^ *\"command\".*/$source\"?,?$" "$folder/compile_commands.json")
        if grep -E -e ' -(W|march|mprefer|fno-)' <<<"$commands" >&2; then
            echo "Colonnade's flags leaked into the command above" >&2
            exit 1
        fi
    done
}

quietly cmake --install "$build" --prefix "$work/prefix" --component libraries
# A moved installation works as well.
mv "$work/prefix" "$work/moved"
quietly cmake -S "$here" -B "$work/outside" -G Ninja -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_BUILD_TYPE=Release -DWHOLE="$whole"
clean_flags "$work/outside" main.cpp document_attention.cpp
quietly cmake --build "$work/outside"
"$work/outside/statically"
"$work/outside/shared"
if [ "$whole" = ON ]; then
    version=$("$work/outside/whole" --version | head -n 1)
    [[ $version == "whole 0."* ]] || { echo "unexpected --version: $version" >&2; exit 1; }
    "$work/outside/whole" "$here/../../configs/from_scratch.yaml"
fi

# The program, its completion scripts and its manual page.
if [ "$whole" = ON ]; then
    quietly cmake --install "$build" --prefix "$work/programs" --component programs
    [[ $("$work/programs/bin/colonnade" --version | head -n 1) == "colonnade 0."* ]] || { echo "the installed colonnade does not run" >&2; exit 1; }
    for file in bash-completion/completions/colonnade zsh/site-functions/_colonnade fish/vendor_completions.d/colonnade.fish man/man1/colonnade.1; do
        [ -s "$work/programs/share/$file" ] || { echo "share/$file is not installed" >&2; exit 1; }
    done
fi

# The C interface alone: by pkg-config, by find_package, and the PyTorch operator finds its library (without PyTorch it
# says so; a library that is not found would be another error).
quietly cmake --install "$build" --prefix "$work/flashmask" --component flashmask
mv "$work/flashmask" "$work/flashmask_moved"
mapfile -t pkgconfig < <(find "$work/flashmask_moved" -name pkgconfig)
libdir=$(dirname "${pkgconfig[0]}")
read -ra flags < <(PKG_CONFIG_PATH=${pkgconfig[0]} pkg-config --cflags --libs colonnade_flashmask)
quietly cc -std=c99 -o "$work/flashmask_c" "$here/../attention/c_api/flashmask_c_test.c" "${flags[@]}" -lm
LD_LIBRARY_PATH=$libdir "$work/flashmask_c"
quietly cmake -S "$here/flashmask" -B "$work/flashmask_by_cmake" -G Ninja -DCMAKE_PREFIX_PATH="$work/flashmask_moved"
quietly cmake --build "$work/flashmask_by_cmake"
"$work/flashmask_by_cmake/flashmask_c"
if command -v python3 >/dev/null && ! PYTHONPATH=$libdir/colonnade python3 -c 'import colonnade_flashmask' 2>"$work/log" && ! grep -q "No module named 'torch'" "$work/log"; then
    cat "$work/log" >&2
    exit 1
fi

# The same library by add_subdirectory; without CUDA, to keep it short.
quietly cmake -S "$here/../attention_alone" -B "$work/subproject" -G Ninja -DCOLONNADE_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
clean_flags "$work/subproject" example_attention_main.cpp
if grep -q 'colonnade_main' "$work/subproject/build.ninja"; then
    echo "a subproject must not build Colonnade's programs" >&2
    exit 1
fi
