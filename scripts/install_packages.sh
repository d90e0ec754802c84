#!/usr/bin/env bash
# Installs the distribution packages that Colonnade needs (Debian 12, Ubuntu 24.04). Does nothing if all are installed.
#   scripts/install_packages.sh [--checks]     --checks: also what the tests of format, scripts, completion and manual page need
set -euo pipefail

packages=(
    build-essential cmake ninja-build pkg-config
    libopenblas-openmp-dev libhdf5-dev libsentencepiece-dev libicu-dev libpcre2-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libfmt-dev
    zlib1g-dev libpng-dev libzstd-dev libsnappy-dev libcurl4-openssl-dev ca-certificates
    libprotobuf-dev protobuf-compiler libssl-dev libgtest-dev libopenmpi-dev openmpi-bin
    wordnet-base python3-pip # the quickstart: its data; its model is in a Python package
)
case "${1:-}" in
    "") ;;
    --checks) packages+=(clang-format-14 shellcheck zsh fish groff-base mandoc) ;;
    *) echo "install_packages.sh: unknown option '$1'; expected --checks or nothing" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "install_packages.sh: these packages are missing, and sudo is not available to install them: ${missing[*]}" >&2; exit 2; }
    as_root=(sudo)
fi
echo "Installing: ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
