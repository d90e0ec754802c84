#!/bin/sh
# Installs a release of Colonnade, or removes it. Checks what it fetched against the release's SHA256SUMS before anything
# is unpacked. Needs sh, tar, sha256sum, and curl or wget for a URL; no root for a folder of yours.
#   install.sh [--from PLACE] [--prefix DIR] [--cpu]
#     --from PLACE    URL or folder with SHA256SUMS and the packages (default: $COLONNADE_RELEASE)
#     --prefix DIR    bin, lib and share go there (default: /usr/local for root, else ~/.local)
#     --cpu           the package without CUDA, a quarter of the size
#   install.sh --deb [--from PLACE] [--cpu]     the Debian package, by apt-get; needs root
#   install.sh --uninstall [--prefix DIR]       removes the files that it installed, and no others
set -eu

fail() {
    echo "install.sh: $*" >&2
    exit 2
}

fetch() { # fetch NAME: from the release to $work
    case "$from" in
        *://*)
            if command -v curl >/dev/null; then
                curl -fsSL --retry 3 -o "$work/$1" "$from/$1" || fail "cannot fetch $from/$1; curl's line above says why"
            elif command -v wget >/dev/null; then
                wget -q -O "$work/$1" "$from/$1" || fail "cannot fetch $from/$1 by wget"
            else
                fail "fetching $from needs curl or wget, and neither is here; install one, or give --from a folder"
            fi ;;
        *)
            [ -f "$from/$1" ] || fail "$from/$1 not found; expected a folder with a release: SHA256SUMS and its packages"
            cp "$from/$1" "$work/$1" ;;
    esac
}

fetch_package() { # fetch_package PATTERN: sets $package, a file in $work whose checksum is right
    fetch SHA256SUMS
    # Lines "<64 digits>  <file name>", with a * before names that were read as binary files.
    package=$(sed -n "s/^[0-9a-f]\{64\} [ *]\($1\)\$/\1/p" "$work/SHA256SUMS")
    case $(echo "$package" | wc -w) in
        1) ;;
        0) fail "SHA256SUMS of $from names no package '$1'; found: $(sed 's/^[^ ]* *//' "$work/SHA256SUMS" | tr '\n' ' ')" ;;
        *) fail "SHA256SUMS of $from names several packages '$1'; expected one: $(echo "$package" | tr '\n' ' ')" ;;
    esac
    fetch "$package"
    wanted=$(sed -n "s/^\([0-9a-f]*\) [ *]$package\$/\1/p" "$work/SHA256SUMS")
    found=$(sha256sum "$work/$package" | cut -d ' ' -f 1)
    [ "$found" = "$wanted" ] ||
        fail "$package is damaged: its SHA-256 is $found, SHA256SUMS has $wanted. Nothing was installed; fetch it again"
}

remove_installed() { # what the list of an installation names, and folders that are empty then
    sort -r "$list" | while read -r file; do
        rm -f "$prefix/$file"
        folder=$(dirname "$file")
        while [ "$folder" != . ] && rmdir "$prefix/$folder" 2>/dev/null; do folder=$(dirname "$folder"); done
    done
}

uninstall() {
    [ -f "$list" ] || fail "no installation in $prefix ($list not found); a Debian package is removed by: apt-get remove colonnade"
    cp "$list" "$work/list"
    echo lib/colonnade/installed_files >>"$work/list"
    list=$work/list
    remove_installed
    echo "removed Colonnade from $prefix"
}

install_tarball() {
    fetch_package "$name-[0-9][^ /]*-linux-x86_64\.tar\.gz"
    mkdir "$work/unpacked"
    tar -xzf "$work/$package" -C "$work/unpacked" --strip-components=1
    (cd "$work/unpacked" && find . ! -type d | sed 's/^\.\///') >"$work/files"
    grep -qx bin/colonnade "$work/files" || fail "$package has no bin/colonnade: it is not a package of Colonnade"
    # Before the old version is removed.
    "$work/unpacked/bin/colonnade" --version >"$work/version" ||
        fail "this machine cannot run the program; its line above says why. It needs an x86-64-v3 processor, glibc 2.34 and GCC 12's libstdc++"
    if [ -f "$list" ]; then remove_installed; fi
    mkdir -p "$prefix/lib/colonnade" || fail "cannot write to $prefix; choose a folder of yours with --prefix"
    tar -xzf "$work/$package" -C "$prefix" --strip-components=1 --no-same-owner
    cp "$work/files" "$list"
    head -n 1 "$work/version"
    echo "installed to $prefix; remove it by: install.sh --uninstall --prefix $prefix"
    case ":$PATH:" in
        *":$prefix/bin:"*) ;;
        *) echo "$prefix/bin is not in PATH" ;;
    esac
    echo "next: colonnade doctor"
}

install_deb() {
    [ "$(id -u)" -eq 0 ] || fail "a Debian package is installed by root; without root leave out --deb"
    fetch_package "${name}_[0-9][^ /]*_amd64\.deb"
    chmod 755 "$work" # apt reads as a user of its own
    apt-get install -y --no-install-recommends "$work/$package"
}

main() {
    from=${COLONNADE_RELEASE:-} prefix='' name=colonnade do=install_tarball
    while [ $# -gt 0 ]; do
        case "$1" in
            --from | --prefix)
                [ $# -ge 2 ] || fail "$1 needs a value"
                if [ "$1" = --from ]; then from=$2; else prefix=$2; fi
                shift ;;
            --cpu) name=colonnade-cpu ;;
            --deb) do=install_deb ;;
            --uninstall) do=uninstall ;;
            *) fail "unknown option '$1'; expected --from, --prefix, --cpu, --deb or --uninstall" ;;
        esac
        shift
    done
    if [ -z "$prefix" ]; then
        if [ "$(id -u)" -eq 0 ]; then prefix=/usr/local; else prefix=$HOME/.local; fi
    fi
    case "$prefix" in /*) ;; *) prefix=$PWD/$prefix ;; esac
    from=${from%/}
    [ -n "$from" ] || [ "$do" = uninstall ] || fail "no release given; expected --from URL_OR_FOLDER, or COLONNADE_RELEASE in the environment"
    list=$prefix/lib/colonnade/installed_files
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    $do
}

main "$@" # the last line, so that half a script does nothing
