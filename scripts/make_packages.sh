#!/usr/bin/env bash
# Builds the program as it is packaged and packs it: a .deb and a .tar.gz, SHA256SUMS and install.sh, in <build>/packages. Build
# releases on Debian 12: the program then runs there and on anything newer, and on Ubuntu 22.04.
#   scripts/make_packages.sh [--cpu]     --cpu: without CUDA, in build-package-cpu; otherwise in build-package
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-package cuda=ON
case "${1:-}" in
    "") ;;
    --cpu) build=build-package-cpu cuda=OFF ;;
    *) echo "make_packages.sh: unknown option '$1'; expected --cpu or nothing" >&2; exit 2 ;;
esac
if [ $cuda = ON ] && ! command -v nvcc >/dev/null; then
    echo "make_packages.sh: nvcc is not in PATH; add CUDA's bin folder to it, or build a package without CUDA by --cpu" >&2
    exit 2
fi
scripts/install_packages.sh
cmake --preset package -B $build -DCOLONNADE_CUDA=$cuda
cmake --build $build --target colonnade
tests/package/portable_test.sh $build
rm -rf $build/packages
(cd $build && cpack)
cp scripts/install.sh $build/packages
cd $build/packages
rm -rf _CPack_Packages
sha256sum -- *.deb *.tar.gz >SHA256SUMS
ls -l
