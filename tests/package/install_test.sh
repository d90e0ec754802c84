#!/usr/bin/env bash
# scripts/install.sh with small packages in place of real ones: what it installs and removes, and what it refuses.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap '[ -z "${server:-}" ] || kill "$server"; rm -rf "$work"' EXIT
unset COLONNADE_RELEASE

fail() { echo "install_test.sh: $*" >&2; exit 1; }
install() { sh "$here/../../scripts/install.sh" "$@"; }
refuses() { # refuses TEXT OPTION...: one line with this text, and nothing in the prefix
    local text=$1
    shift
    if install "$@" >"$work/out" 2>"$work/err"; then fail "accepted: $*"; fi
    [ "$(grep -c '^install.sh: ' "$work/err")" = 1 ] || fail "expected one line of install.sh, found: $(cat "$work/err")"
    grep -q -- "$text" "$work/err" || fail "expected '$text', found: $(cat "$work/err")"
}
files_of() { (cd "$1" && find . ! -type d | sort); }

make_release() { # make_release FOLDER VERSION FILE...
    local folder=$1 version=$2 tree=$work/tree/colonnade-$2-linux-x86_64 file
    shift 2
    rm -rf "$work/tree"
    mkdir -p "$folder" "$tree/bin" "$tree/lib/colonnade"
    printf '#!/bin/sh\necho "colonnade %s"\n' "$version" >"$tree/bin/colonnade"
    chmod +x "$tree/bin/colonnade"
    for file; do
        mkdir -p "$(dirname "$tree/$file")"
        echo "$version" >"$tree/$file"
    done
    tar -czf "$folder/colonnade-$version-linux-x86_64.tar.gz" -C "$work/tree" "colonnade-$version-linux-x86_64"
    (cd "$folder" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
}

make_release "$work/first" 0.1.0 lib/colonnade/libx.so share/doc/colonnade/LICENSE "share/doc/colonnade/two words"
make_release "$work/second" 0.2.0 lib/colonnade/liby.so

# Installs, into a folder that holds something of the user's.
prefix=$work/prefix
mkdir -p "$prefix/share/doc" "$prefix/bin"
echo mine | tee "$prefix/share/doc/mine" >"$prefix/bin/mine"
mine=$(files_of "$prefix")
install --from "$work/first" --prefix "$prefix" >"$work/out"
[ "$("$prefix/bin/colonnade")" = "colonnade 0.1.0" ] || fail "the program does not run"
for file in lib/colonnade/libx.so share/doc/colonnade/LICENSE "share/doc/colonnade/two words"; do [ -f "$prefix/$file" ] || fail "$file is missing"; done

# A new version leaves nothing of the old one; uninstalling leaves what was there before.
COLONNADE_RELEASE=$work/second install --prefix "$prefix" >"$work/out"
[ "$("$prefix/bin/colonnade")" = "colonnade 0.2.0" ] || fail "the new version is not there"
[ ! -e "$prefix/lib/colonnade/libx.so" ] || fail "a file of the old version was left"
install --uninstall --prefix "$prefix" >"$work/out"
[ "$(files_of "$prefix")" = "$mine" ] || fail "left after uninstalling: $(files_of "$prefix")"
[ ! -e "$prefix/lib" ] || fail "an empty folder was left"
refuses "no installation in" --uninstall --prefix "$prefix"

# Refused before anything is unpacked, and an installed version stays.
install --from "$work/first" --prefix "$prefix" >"$work/out"
cp -r "$work/second" "$work/damaged"
printf 'X' | dd of="$work/damaged/colonnade-0.2.0-linux-x86_64.tar.gz" bs=1 seek=100 conv=notrunc status=none
refuses "colonnade-0.2.0-linux-x86_64.tar.gz is damaged" --from "$work/damaged" --prefix "$prefix"
[ "$("$prefix/bin/colonnade")" = "colonnade 0.1.0" ] || fail "the installed version was touched"
refuses "is damaged" --from "$work/damaged" --prefix "$work/fresh"
[ ! -e "$work/fresh" ] || fail "something was installed from a damaged package"
mkdir "$work/truncated"
head -c 200 "$work/second/colonnade-0.2.0-linux-x86_64.tar.gz" >"$work/truncated/colonnade-0.2.0-linux-x86_64.tar.gz"
cp "$work/second/SHA256SUMS" "$work/truncated"
refuses "is damaged" --from "$work/truncated" --prefix "$work/fresh"
mkdir "$work/without_sums"
cp "$work"/second/*.tar.gz "$work/without_sums"
refuses "SHA256SUMS not found" --from "$work/without_sums" --prefix "$work/fresh"
refuses "names no package" --from "$work/first" --prefix "$work/fresh" --cpu
refuses "no release given" --prefix "$work/fresh"
refuses "unknown option '--perfix'" --perfix "$work/fresh"
cp -r "$work/first" "$work/two"
make_release "$work/two" 0.2.0
refuses "names several packages" --from "$work/two" --prefix "$work/fresh"

# A program that this machine cannot run does not replace one that it can.
make_release "$work/foreign" 0.3.0
mkdir -p "$work/tree/colonnade-0.3.0-linux-x86_64/bin"
printf '#!/bin/sh\necho "no such CPU" >&2\nexit 1\n' >"$work/tree/colonnade-0.3.0-linux-x86_64/bin/colonnade"
tar -czf "$work/foreign/colonnade-0.3.0-linux-x86_64.tar.gz" -C "$work/tree" colonnade-0.3.0-linux-x86_64
(cd "$work/foreign" && sha256sum -- *.tar.gz >SHA256SUMS)
refuses "cannot run the program" --from "$work/foreign" --prefix "$prefix"
[ "$("$prefix/bin/colonnade")" = "colonnade 0.1.0" ] || fail "the installed version was touched"

# By HTTP, with whichever of curl and wget is here.
if command -v python3 >/dev/null && { command -v curl >/dev/null || command -v wget >/dev/null; }; then
    : >"$work/server"  # there before the server writes its port
    python3 -u -m http.server --bind 127.0.0.1 --directory "$work" 0 >"$work/server" 2>/dev/null &
    server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/server")
        [ -z "$port" ] || break
        sleep 0.1
    done
    export no_proxy=127.0.0.1
    install --from "http://127.0.0.1:$port/second/" --prefix "$work/by_http" >"$work/out"
    [ "$("$work/by_http/bin/colonnade")" = "colonnade 0.2.0" ] || fail "not installed by HTTP"
    refuses "cannot fetch http://127.0.0.1:$port/nowhere/SHA256SUMS" --from "http://127.0.0.1:$port/nowhere" --prefix "$work/fresh"
    refuses "is damaged" --from "http://127.0.0.1:$port/damaged" --prefix "$work/fresh"
fi
[ ! -e "$work/fresh" ] || fail "a refused release left $(files_of "$work/fresh")"
echo ok
